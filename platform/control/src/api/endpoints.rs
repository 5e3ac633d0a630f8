//! The operations of the API: each is added with the right that it takes and the problems that it may answer with, which is
//! enforced and described in one place.

use std::collections::{BTreeMap, BTreeSet};

use axum::Router;
use axum::handler::Handler;
use axum::middleware::from_fn_with_state;
use http::Method;
use platform_model::Role;
use utoipa::openapi::path::{Operation, ParameterBuilder, ParameterIn, PathItem};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::security::SecurityRequirement;
use utoipa::openapi::{
    Content, HeaderBuilder, OpenApi, Ref, RefOr, Required, Response, ResponseBuilder,
};
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};

use super::access::{Access, Over, authorize};
use super::auth::authenticate;
use super::change::{Changes, carry_out};
use super::{Api, idempotency, openapi};
use crate::problem::Code;

/// The operations so far.
pub(super) struct Endpoints {
    api: Api,
    router: OpenApiRouter<Api>,
    public: OpenApiRouter<Api>,
}

impl Endpoints {
    pub(super) fn new(api: Api) -> Self {
        Self {
            api,
            router: OpenApiRouter::default(),
            public: OpenApiRouter::default(),
        }
    }

    /// An operation that needs no token.
    pub(super) fn public(
        mut self,
        codes: &[Code],
        (schemas, mut paths, methods): UtoipaMethodRouter<Api>,
    ) -> Self {
        for (_, operation) in operations(&mut paths.paths) {
            operation.security = Some(vec![SecurityRequirement::default()]);
            describe(operation, codes);
        }
        self.public = self.public.routes((schemas, paths, methods));
        self
    }

    /// An operation that takes a right, with the problems that are its own: those that come of the token, the path, the
    /// query, the body and the store are added.
    pub(super) fn add(
        mut self,
        access: Access,
        codes: &[Code],
        (schemas, mut paths, methods): UtoipaMethodRouter<Api>,
    ) -> Self {
        let (mut changes, mut once) = (false, false);
        for (method, operation) in operations(&mut paths.paths) {
            changes |= method != Method::GET;
            once |= method == Method::POST && !uploads(operation);
            if once {
                operation
                    .parameters
                    .get_or_insert_default()
                    .push(key_parameter().into());
            }
            let right = SecurityRequirement::new(openapi::TOKEN, [access.word()]);
            operation.security = Some(vec![right]);
            let mut all = common(access, changes, once, operation);
            all.extend(codes);
            describe(operation, &all);
        }
        let mut methods = methods.layer(from_fn_with_state(access, authorize));
        if changes {
            let api = self.api.clone();
            methods = methods.layer(from_fn_with_state(Changes { api, once }, carry_out));
        }
        self.router = self.router.routes((schemas, paths, methods));
        self
    }

    /// The routes, behind the token where they need one, and their description. `wrong_method` answers where a path does
    /// not take a method: it needs a token too.
    pub(super) fn finish<H, T>(self, wrong_method: H) -> (Router<Api>, OpenApi)
    where
        H: Handler<T, Api>,
        T: 'static,
    {
        let (router, described) = self.router.split_for_parts();
        let (public, also) = self.public.split_for_parts();
        let mut document = openapi::document();
        document.merge(described);
        document.merge(also);
        let router = router
            .method_not_allowed_fallback(wrong_method.clone())
            .route_layer(from_fn_with_state(self.api.clone(), authenticate))
            .merge(public.method_not_allowed_fallback(wrong_method));
        (router, document)
    }
}

/// The operations of some paths.
fn operations(
    paths: &mut BTreeMap<String, PathItem>,
) -> impl Iterator<Item = (Method, &mut Operation)> {
    paths.values_mut().flat_map(|item| {
        let all = [
            (Method::GET, &mut item.get),
            (Method::PUT, &mut item.put),
            (Method::POST, &mut item.post),
            (Method::PATCH, &mut item.patch),
            (Method::DELETE, &mut item.delete),
        ];
        all.into_iter()
            .filter_map(|(method, operation)| Some((method, operation.as_mut()?)))
    })
}

/// Whether an operation takes a body that is no JSON: such a body is not kept to be compared with that of a later request.
fn uploads(operation: &Operation) -> bool {
    match &operation.request_body {
        Some(RefOr::T(body)) => !body.content.contains_key("application/json"),
        _ => false,
    }
}

/// The problems that an operation may answer with because of how it is called.
fn common(access: Access, changes: bool, once: bool, operation: &Operation) -> Vec<Code> {
    let mut codes = vec![
        Code::TokenMissing,
        Code::TokenWrong,
        Code::TokenExpired,
        Code::TooManyFailures,
        Code::RateLimited,
        Code::StoreFailed,
    ];
    match access.over {
        Over::Anything => {}
        Over::Node => codes.push(Code::ScopeInsufficient),
        Over::Tenant | Over::WithinTenant => codes.push(Code::TenantUnknown),
        Over::App => codes.extend([Code::TenantUnknown, Code::AppUnknown]),
    }
    if access.role > Role::Read {
        codes.push(Code::RoleInsufficient);
    }
    let parameters = operation.parameters.iter().flatten();
    for parameter in parameters {
        let RefOr::T(parameter) = parameter else {
            continue;
        };
        match parameter.parameter_in {
            ParameterIn::Path => codes.push(Code::NameInvalid),
            ParameterIn::Query => codes.push(Code::QueryInvalid),
            ParameterIn::Header if parameter.name == "If-Match" => {
                codes.extend([Code::EtagInvalid, Code::PreconditionFailed]);
            }
            _ => {}
        }
    }
    if operation.request_body.is_some() {
        codes.extend([Code::BodyIncomplete, Code::BodyTooLarge]);
        if !uploads(operation) {
            codes.extend([Code::JsonInvalid, Code::TypeUnsupported]);
        }
    }
    if once {
        codes.extend([
            Code::BodyIncomplete,
            Code::BodyTooLarge,
            Code::IdempotencyKeyInvalid,
            Code::IdempotencyMismatch,
            Code::IdempotencyRunning,
            Code::IdempotencyAnswerLost,
        ]);
    }
    if changes {
        codes.extend([Code::Conflict, Code::DiskFull, Code::Internal]);
    }
    codes
}

/// Adds the answers with these problems to an operation, one for each status.
fn describe(operation: &mut Operation, codes: &[Code]) {
    let mut statuses = BTreeMap::<u16, BTreeSet<&str>>::new();
    for code in codes {
        let (status, word, _) = code.entry();
        statuses.entry(status.as_u16()).or_default().insert(word);
    }
    for response in operation.responses.responses.values_mut() {
        if let RefOr::T(response) = response {
            with_request_id(response);
        }
    }
    for (status, words) in statuses {
        let words: Vec<_> = words.iter().map(|word| format!("`{word}`")).collect();
        let mut response = ResponseBuilder::new()
            .description(words.join(", "))
            .content(
                platform_model::problem::CONTENT_TYPE,
                Content::new(Some(Ref::from_schema_name("Problem"))),
            )
            .build();
        with_request_id(&mut response);
        let responses = &mut operation.responses.responses;
        responses.insert(status.to_string(), response.into());
    }
}

/// Adds the header that every answer has.
fn with_request_id(response: &mut Response) {
    let header = HeaderBuilder::new()
        .schema(Some(ObjectBuilder::new().schema_type(Type::String)))
        .description(Some("The id of the request, as the node's own log has it."))
        .build();
    response
        .headers
        .insert("x-request-id".to_owned(), header.into());
}

/// The parameter of what can be carried out once.
fn key_parameter() -> utoipa::openapi::path::Parameter {
    let schema = ObjectBuilder::new()
        .schema_type(Type::String)
        .min_length(Some(1))
        .max_length(Some(255))
        .pattern(Some("^[\\x20-\\x7e]+$"));
    ParameterBuilder::new()
        .name(idempotency::KEY)
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(
            "Makes it safe to send the request again: with the same key it is carried out once within 24 hours, and \
             answered as the first time. A UUID, for example.",
        ))
        .schema(Some(schema))
        .build()
}
