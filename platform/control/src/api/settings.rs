//! Configuration and secrets of apps, and the key that seals secrets.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use platform_model::{
    Config, ConfigChanged, ConfigChanges, KeyRotated, List, SecretChanged, SecretInfo, SecretName,
    SecretRequest,
};
use serde::Deserialize;
use utoipa::IntoParams;

use super::Api;
use super::etag::{IfMatch, Tagged};
use super::input::{JsonOf, OfApp, OfSecret, QueryOf, UnquotedJsonOf};
use crate::engine::{Origin, Set};
use crate::problem::ApiError;
use crate::store::Revision;
use crate::store::records::{SecretHead, SettingsRecord};

/// `?deploy=false`.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct DeployQuery {
    /// Whether the app is deployed anew: the component and the limits that it has. True by default.
    deploy: Option<bool>,
}

/// The configuration of an app.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/apps/{app}/config", tag = "settings", operation_id = "get_config", params(OfApp),
    responses((status = 200, description = "The configuration.", body = Config,
        headers(("etag" = String, description = "The state of the app's settings; none where there are none yet."))))
)]
pub(super) async fn config(
    State(api): State<Api>,
    OfApp(tenant, app): OfApp,
) -> Result<Response, ApiError> {
    let (settings, revision) = api.engine.settings(&tenant, &app).await?;
    Ok(tagged(revision, config_of(settings)))
}

/// Changes the configuration of an app, and deploys it anew with it. What is left out stays, `null` takes a value out.
#[utoipa::path(
    patch, path = "/v1/tenants/{tenant}/apps/{app}/config", tag = "settings", operation_id = "change_config",
    params(OfApp, IfMatch), request_body = ConfigChanges,
    responses((status = 200, description = "The configuration as it is now.", body = ConfigChanged,
        headers(("etag" = String, description = "The state of the app's settings."))))
)]
pub(super) async fn change_config(
    State(api): State<Api>,
    OfApp(tenant, app): OfApp,
    IfMatch(expected): IfMatch,
    origin: Origin,
    JsonOf(changes): JsonOf<ConfigChanges>,
) -> Result<Response, ApiError> {
    let set = api
        .engine
        .change_config(&origin, &tenant, &app, expected, changes);
    let Set {
        settings,
        revision,
        deployed,
    } = set.await?;
    let changed = ConfigChanged {
        config: config_of(settings),
        deployment: deployed.map(|deployed| api.deployed(deployed)),
    };
    Ok(tagged(revision, changed))
}

/// The secrets of an app, without their values.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/apps/{app}/secrets", tag = "settings", operation_id = "list_secrets", params(OfApp),
    responses((status = 200, description = "Secrets by name.", body = List<SecretInfo>,
        headers(("etag" = String, description = "The state of the app's settings; none where there are none yet."))))
)]
pub(super) async fn secrets(
    State(api): State<Api>,
    OfApp(tenant, app): OfApp,
) -> Result<Response, ApiError> {
    let (settings, revision) = api.engine.settings(&tenant, &app).await?;
    let secrets = settings.secrets.into_iter();
    let items = secrets.map(|(name, head)| info(name, &head)).collect();
    Ok(tagged(revision, List { items, next: None }))
}

/// Gives a secret a value, and deploys the app anew with it. The value is never given back. `If-Match: *` only gives another
/// value to a secret that is there.
#[utoipa::path(
    put, path = "/v1/tenants/{tenant}/apps/{app}/secrets/{secret}", tag = "settings", operation_id = "set_secret",
    params(OfSecret, IfMatch), request_body = SecretRequest,
    responses((status = 200, description = "The secret as it is now.", body = SecretChanged,
        headers(("etag" = String, description = "The state of the app's settings."))))
)]
pub(super) async fn set_secret(
    State(api): State<Api>,
    OfSecret(tenant, app, name): OfSecret,
    IfMatch(expected): IfMatch,
    origin: Origin,
    UnquotedJsonOf(request): UnquotedJsonOf<SecretRequest>,
) -> Result<Response, ApiError> {
    let set = api
        .engine
        .set_secret(&origin, &tenant, &app, &name, expected, request);
    let Set {
        settings,
        revision,
        deployed,
    } = set.await?;
    let head = settings.secrets.get(&name);
    let changed = SecretChanged {
        secret: head.map(|head| info(name.clone(), head)),
        deployment: deployed.map(|deployed| api.deployed(deployed)),
    };
    Ok(tagged(revision, changed))
}

/// Takes a secret away, and deploys the app anew without it.
#[utoipa::path(
    delete, path = "/v1/tenants/{tenant}/apps/{app}/secrets/{secret}", tag = "settings", operation_id = "delete_secret",
    params(OfSecret, DeployQuery),
    responses((status = 200, description = "It is gone.", body = SecretChanged,
        headers(("etag" = String, description = "The state of the app's settings."))))
)]
pub(super) async fn delete_secret(
    State(api): State<Api>,
    OfSecret(tenant, app, name): OfSecret,
    QueryOf(query): QueryOf<DeployQuery>,
    origin: Origin,
) -> Result<Response, ApiError> {
    let deploy = query.deploy.unwrap_or(true);
    let set = api
        .engine
        .delete_secret(&origin, &tenant, &app, &name, deploy);
    let Set {
        revision, deployed, ..
    } = set.await?;
    let changed = SecretChanged {
        secret: None,
        deployment: deployed.map(|deployed| api.deployed(deployed)),
    };
    Ok(tagged(revision, changed))
}

/// Makes a new key for secrets, seals all values anew with it, and forgets the old one.
#[utoipa::path(
    post, path = "/v1/secret-key/rotate", tag = "settings", operation_id = "rotate_secret_key",
    responses((status = 200, description = "Everything is sealed with the new key.", body = KeyRotated))
)]
pub(super) async fn rotate_key(
    State(api): State<Api>,
    origin: Origin,
) -> Result<(StatusCode, Json<KeyRotated>), ApiError> {
    let (key, resealed) = api.engine.rotate_key(&origin).await?;
    Ok((StatusCode::OK, Json(KeyRotated { key, resealed })))
}

fn config_of(settings: SettingsRecord) -> Config {
    Config {
        values: settings.values,
    }
}

fn info(name: SecretName, head: &SecretHead) -> SecretInfo {
    SecretInfo {
        name,
        version: head.version,
        updated_at: head.updated_at,
    }
}

/// JSON with an entity tag, where there is one.
fn tagged<T: serde::Serialize>(revision: Option<Revision>, value: T) -> Response {
    match revision {
        Some(revision) => Tagged(revision, value).into_response(),
        None => Json(value).into_response(),
    }
}
