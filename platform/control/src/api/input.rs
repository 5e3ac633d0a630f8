//! What requests carry: names in paths, queries, JSON bodies. Each with an error that says what is wrong.

use std::str::FromStr;

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Query, RawPathParams, Request};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use platform_model::{AppName, DeploymentId, HostName, SecretName, TenantName};
use serde::de::DeserializeOwned;
use utoipa::IntoParams;

use crate::problem::{ApiError, Code};

/// Longest JSON body, in bytes.
const MAX_JSON: usize = 1 << 20;

/// `{tenant}` of the path.
#[derive(IntoParams)]
#[into_params(names("tenant"), parameter_in = Path)]
pub(super) struct OfTenant(pub(super) TenantName);

/// `{tenant}` and `{app}` of the path.
#[derive(IntoParams)]
#[into_params(names("tenant", "app"), parameter_in = Path)]
pub(super) struct OfApp(pub(super) TenantName, pub(super) AppName);

/// `{tenant}`, `{app}` and `{deployment}` of the path.
#[derive(IntoParams)]
#[into_params(names("tenant", "app", "deployment"), parameter_in = Path)]
pub(super) struct OfDeployment(
    pub(super) TenantName,
    pub(super) AppName,
    pub(super) DeploymentId,
);

/// `{tenant}` and `{domain}` of the path.
#[derive(IntoParams)]
#[into_params(names("tenant", "domain"), parameter_in = Path)]
pub(super) struct OfDomain(pub(super) TenantName, pub(super) HostName);

/// `{tenant}`, `{app}` and `{secret}` of the path.
#[derive(IntoParams)]
#[into_params(names("tenant", "app", "secret"), parameter_in = Path)]
pub(super) struct OfSecret(
    pub(super) TenantName,
    pub(super) AppName,
    pub(super) SecretName,
);

/// The parameters of the path.
pub(super) struct Params(RawPathParams);

impl Params {
    /// One of them as what it is to be.
    pub(super) fn get<T: FromStr<Err: std::fmt::Display>>(
        &self,
        name: &str,
    ) -> Result<T, ApiError> {
        let text = self.0.iter().find(|(key, _)| *key == name);
        let text = text.map(|(_, text)| text).unwrap_or_default();
        text.parse()
            .map_err(|e| ApiError::new(Code::NameInvalid, format!("{name}: {e}")))
    }
}

impl<S: Sync> FromRequestParts<S> for Params {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let params = RawPathParams::from_request_parts(parts, &()).await;
        params
            .map(Self)
            .map_err(|e| ApiError::new(Code::NameInvalid, e.body_text()))
    }
}

impl<S: Sync> FromRequestParts<S> for OfTenant {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let params = Params::from_request_parts(parts, state).await?;
        Ok(Self(params.get("tenant")?))
    }
}

impl<S: Sync> FromRequestParts<S> for OfApp {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let params = Params::from_request_parts(parts, state).await?;
        Ok(Self(params.get("tenant")?, params.get("app")?))
    }
}

impl<S: Sync> FromRequestParts<S> for OfDeployment {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let params = Params::from_request_parts(parts, state).await?;
        let (tenant, app) = (params.get("tenant")?, params.get("app")?);
        Ok(Self(tenant, app, params.get("deployment")?))
    }
}

impl<S: Sync> FromRequestParts<S> for OfDomain {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let params = Params::from_request_parts(parts, state).await?;
        Ok(Self(params.get("tenant")?, params.get("domain")?))
    }
}

impl<S: Sync> FromRequestParts<S> for OfSecret {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let params = Params::from_request_parts(parts, state).await?;
        let (tenant, app) = (params.get("tenant")?, params.get("app")?);
        Ok(Self(tenant, app, params.get("secret")?))
    }
}

/// The query, as `T` has it.
pub(super) struct QueryOf<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for QueryOf<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let query = Query::from_request_parts(parts, state).await;
        let Query(query) = query.map_err(|e| ApiError::new(Code::QueryInvalid, e.body_text()))?;
        Ok(Self(query))
    }
}

/// The body as JSON.
pub(super) struct JsonOf<T>(pub(super) T);

impl<T: DeserializeOwned, S: Sync> FromRequest<S> for JsonOf<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let body = json_of(request).await?;
        serde_json::from_slice(&body).map(Self).map_err(|e| {
            let detail = format!("the body is not what is expected: {e}");
            ApiError::new(Code::JsonInvalid, detail)
        })
    }
}

/// The body as JSON that may have a secret in it: what is wrong with it is told without quoting it.
pub(super) struct UnquotedJsonOf<T>(pub(super) T);

impl<T: DeserializeOwned, S: Sync> FromRequest<S> for UnquotedJsonOf<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let body = json_of(request).await?;
        serde_json::from_slice(&body).map(Self).map_err(|e| {
            let (line, column) = (e.line(), e.column());
            let detail = format!(
                "the body is not what is expected, at line {line}, column {column}: see openapi.json"
            );
            ApiError::new(Code::JsonInvalid, detail)
        })
    }
}

/// The body of a request that has JSON.
async fn json_of(request: Request) -> Result<Bytes, ApiError> {
    if let Some(kind) = request.headers().get(CONTENT_TYPE) {
        let kind = kind.to_str().unwrap_or_default();
        let essence = kind.split(';').next().unwrap_or_default().trim();
        if !essence.eq_ignore_ascii_case("application/json") {
            let detail = format!("the body is {kind:?}: send application/json");
            return Err(ApiError::new(Code::TypeUnsupported, detail));
        }
    }
    body_of(request.into_body()).await
}

/// All of a body that may be JSON.
pub(super) async fn body_of(body: Body) -> Result<Bytes, ApiError> {
    let body = Limited::new(body, MAX_JSON).collect().await;
    let body = body.map_err(|e| match e.downcast_ref::<LengthLimitError>() {
        Some(_) => {
            let detail = format!("the body is longer than the {MAX_JSON} bytes that are possible");
            ApiError::new(Code::BodyTooLarge, detail)
        }
        None => ApiError::new(Code::BodyIncomplete, format!("the body was cut off: {e}")),
    })?;
    Ok(body.to_bytes())
}
