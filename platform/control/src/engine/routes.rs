//! The routes of apps: which hosts and paths lead to an app, besides the host that it has of itself.

use platform_model::{
    AppName, AppRoute, AppRoutes, AppRoutesError, HostName, PathPrefix, TenantName,
};

use super::{Engine, Expected, Origin, Unexpected};
use crate::store::records::{AppRecord, DomainRecord, RoutesRecord, Stored};
use crate::store::{Change, Revision, StoreError};

/// Why routes were not set.
#[derive(Debug, thiserror::Error)]
pub enum RoutingError {
    /// There is no such app.
    #[error("there is no app {1} in the tenant {0}")]
    AppUnknown(TenantName, AppName),
    /// They are not possible.
    #[error(transparent)]
    Routes(#[from] AppRoutesError),
    /// A host of another app, or of none.
    #[error("{host} is not a host of this app: its own is {own}, others are domains of the tenant")]
    HostForeign {
        /// The host.
        host: HostName,
        /// The app's own.
        own: String,
    },
    /// A domain that is not proved to be the tenant's.
    #[error(
        "{0} is not a proved domain of the tenant: add it with `cloister domain add {0}`, then prove it with `cloister domain verify {0}`"
    )]
    HostUnproved(HostName),
    /// Another app of the tenant has it.
    #[error(
        "{0}{1} is a route of the app {2} already: take it out there first, or choose another path"
    )]
    Taken(HostName, PathPrefix, AppName),
    /// They are not as the caller has seen them.
    #[error(transparent)]
    Unexpected(#[from] Unexpected),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Engine {
    /// The routes of an app, besides its own host.
    ///
    /// # Errors
    /// When there is no such app.
    pub async fn routes(
        &self,
        tenant: &TenantName,
        app: &AppName,
    ) -> Result<(AppRoutes, Option<Revision>), RoutingError> {
        let keys = (AppRecord::at(tenant, app), RoutesRecord::at(tenant, app));
        let found = self.ask(move |records| Ok((records.get(&keys.0)?, records.get(&keys.1)?)));
        match found.await? {
            (None, _) => Err(RoutingError::AppUnknown(tenant.clone(), app.clone())),
            (Some(_), None) => Ok((AppRoutes::default(), None)),
            (Some(_), Some(Stored { record, revision })) => {
                let routes = record.routes;
                Ok((AppRoutes { routes }, Some(revision)))
            }
        }
    }

    /// Whether an app can have these routes. It need not be there yet.
    ///
    /// # Errors
    /// Why it cannot.
    pub async fn check_routes(
        &self,
        tenant: &TenantName,
        app: &AppName,
        routes: AppRoutes,
    ) -> Result<AppRoutes, RoutingError> {
        let record = wanted(tenant, app, routes)?;
        self.with_records(move |records| {
            records.change(|change| {
                hosts(change, &record)?;
                others(change, &record)
            })?;
            let routes = record.routes;
            Ok(AppRoutes { routes })
        })
        .await
    }

    /// Sets the routes of an app; all others that it had are gone.
    ///
    /// # Errors
    /// Why they were not set; the app has those that it had then.
    pub async fn set_routes(
        &self,
        origin: &Origin,
        tenant: &TenantName,
        app: &AppName,
        expected: Expected,
        routes: AppRoutes,
    ) -> Result<(AppRoutes, Option<Revision>), RoutingError> {
        let record = wanted(tenant, app, routes)?;
        let routes = record.routes.clone();
        let key = (tenant.clone(), app.clone());
        let _turn = self.turn(&key).await;
        let plan = move |change: &mut Change<'_>| put(change, &record, &expected);
        let (before, written) = self.change_at(origin, plan).await?;
        self.serve_routes(&key, routes.clone());
        let revision = written.or(before).filter(|_| !routes.is_empty());
        Ok((AppRoutes { routes }, revision))
    }
}

/// What is to be kept of the routes of an app, if they can be meant at all.
fn wanted(
    tenant: &TenantName,
    app: &AppName,
    routes: AppRoutes,
) -> Result<RoutesRecord, RoutingError> {
    routes.check()?;
    Ok(RoutesRecord {
        tenant: tenant.clone(),
        app: app.clone(),
        routes: routes.sorted().routes,
    })
}

/// Writes routes; the revision of those before.
fn put(
    change: &mut Change<'_>,
    record: &RoutesRecord,
    expected: &Expected,
) -> Result<Option<Revision>, RoutingError> {
    let (tenant, app) = (&record.tenant, &record.app);
    if change.get(&AppRecord::at(tenant, app))?.is_none() {
        return Err(RoutingError::AppUnknown(tenant.clone(), app.clone()));
    }
    let key = RoutesRecord::at(tenant, app);
    let before = change.stored(&key)?;
    let revision = before.as_ref().map(|stored| stored.revision);
    expected.check(revision)?;
    let had = before.map(|stored| stored.record.routes);
    if had.unwrap_or_default() == record.routes {
        return Ok(revision);
    }
    hosts(change, record)?;
    others(change, record)?;
    match record.routes.is_empty() {
        true => change.delete(&key),
        false => change.put(record)?,
    }
    Ok(revision)
}

/// Whether the hosts are the app's own, or proved.
fn hosts(change: &mut Change<'_>, record: &RoutesRecord) -> Result<(), RoutingError> {
    let own = record.app.host(&record.tenant);
    for AppRoute { host, .. } in &record.routes {
        if host.as_str() == own {
            continue;
        }
        if host.is_local() {
            let (host, own) = (host.clone(), own.clone());
            return Err(RoutingError::HostForeign { host, own });
        }
        let domain = change.get(&DomainRecord::at(&record.tenant, host))?;
        if domain.is_none_or(|domain| domain.proved_at.is_none()) {
            return Err(RoutingError::HostUnproved(host.clone()));
        }
    }
    Ok(())
}

/// Whether no other app has one of the routes. Apps of other tenants have other hosts.
fn others(change: &Change<'_>, record: &RoutesRecord) -> Result<(), RoutingError> {
    let all = change.records().all(&RoutesRecord::of(&record.tenant))?;
    for other in all.iter().filter(|other| other.app != record.app) {
        for AppRoute { host, path, .. } in &record.routes {
            let same = |route: &AppRoute| route.host == *host && route.path == *path;
            if other.routes.iter().any(same) {
                let app = other.app.clone();
                return Err(RoutingError::Taken(host.clone(), path.clone(), app));
            }
        }
    }
    Ok(())
}
