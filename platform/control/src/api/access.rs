//! Which right each operation takes, and whether a token has it. Declared where the operation is added, so that there is
//! no operation without it.
//!
//! What a token may not see is not there: the answer is the same 404 as for what does not exist, and it is given before
//! anything is looked up.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use platform_model::{AppName, Role, TenantName};

use super::auth::Principal;
use super::input::Params;
use super::{apps, tenants};
use crate::problem::{ApiError, Code};

/// What an operation is about, which the scope of a token has to cover.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Over {
    /// Nothing in particular: the answer has only what the token's scope covers.
    Anything,
    /// The node.
    Node,
    /// The tenant of the path.
    Tenant,
    /// Something that the tenant of the path and each of its apps share.
    WithinTenant,
    /// The app of the path.
    App,
}

/// The right that an operation takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Access {
    pub(super) over: Over,
    pub(super) role: Role,
}

impl Access {
    pub(super) const fn anything(role: Role) -> Self {
        let over = Over::Anything;
        Self { over, role }
    }

    pub(super) const fn node(role: Role) -> Self {
        let over = Over::Node;
        Self { over, role }
    }

    pub(super) const fn tenant(role: Role) -> Self {
        let over = Over::Tenant;
        Self { over, role }
    }

    pub(super) const fn within_tenant(role: Role) -> Self {
        let over = Over::WithinTenant;
        Self { over, role }
    }

    pub(super) const fn app(role: Role) -> Self {
        let over = Over::App;
        Self { over, role }
    }

    /// The right as the description of the API has it, such as `app:deploy`.
    pub(super) fn word(self) -> String {
        let over = match self.over {
            Over::Anything => "any",
            Over::Node => "node",
            Over::Tenant => "tenant",
            Over::WithinTenant => "within-tenant",
            Over::App => "app",
        };
        format!("{over}:{}", self.role)
    }

    /// Whether a principal has the right.
    fn decide(self, principal: &Principal, params: &Params) -> Result<(), ApiError> {
        let scope = &principal.scope;
        match self.over {
            Over::Anything => {}
            Over::Node => {
                if scope.tenant().is_some() {
                    let detail = format!(
                        "this takes a token of the node, and the token is of {scope}: ask the operator of the node"
                    );
                    return Err(ApiError::new(Code::ScopeInsufficient, detail));
                }
            }
            Over::Tenant => {
                let tenant: TenantName = params.get("tenant")?;
                if !scope.covers_tenant(&tenant) {
                    return Err(tenants::unknown(&tenant));
                }
            }
            Over::WithinTenant => {
                let tenant: TenantName = params.get("tenant")?;
                if scope.tenant().is_some_and(|own| *own != tenant) {
                    return Err(tenants::unknown(&tenant));
                }
            }
            Over::App => {
                let (tenant, app): (TenantName, AppName) =
                    (params.get("tenant")?, params.get("app")?);
                if scope.tenant().is_some_and(|own| *own != tenant) {
                    return Err(tenants::unknown(&tenant));
                }
                if !scope.covers_app(&tenant, &app) {
                    return Err(apps::unknown(&tenant, &app));
                }
            }
        }
        if principal.role < self.role {
            let (has, takes) = (principal.role, self.role);
            let detail = format!(
                "the token has the role {has} and this takes {takes}: use another token, or have one made that may"
            );
            return Err(ApiError::new(Code::RoleInsufficient, detail));
        }
        Ok(())
    }
}

/// Lets a request pass whose token has the right.
pub(super) async fn authorize(
    State(access): State<Access>,
    params: Params,
    request: Request,
    next: Next,
) -> Response {
    let decided = match request.extensions().get::<Principal>() {
        Some(principal) => access.decide(principal, &params),
        None => Err(ApiError::new(Code::TokenMissing, "send a token")),
    };
    match decided {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}
