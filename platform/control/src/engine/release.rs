//! Who answers for an app, of the deployments that it has: rollback, promotion, split; and what is remembered of it.
//!
//! All of these only write the pointer, after everything that it will point at is ready.

use std::collections::BTreeSet;
use std::sync::Arc;

use platform_data::Target;
use platform_model::api::AppChangesError;
use platform_model::{
    AppChanges, AppName, DeploymentId, Release, ReleaseAction, TenantName, Traffic, TrafficError,
};

use super::canary::given_up;
use super::commit::put_release;
use super::deploy::Warming;
use super::usage::{self, Cost};
use super::{AppKey, DeployError, Engine, Expected, Origin, QuotaError, Unexpected};
use crate::store::records::{AppRecord, CanaryRecord, DeploymentRecord, HistoryRecord, Stored};
use crate::store::{Change, Records, Revision, StoreError};

/// Lines of the history that are looked at for the deployment that answered before.
const LOOK_BACK: usize = 200;

/// Why who answers was not changed.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// There is no such app.
    #[error("there is no app {1} in the tenant {0}")]
    AppUnknown(TenantName, AppName),
    /// There is no such deployment.
    #[error("the app {0} has no deployment {1}")]
    DeploymentUnknown(AppName, DeploymentId),
    /// No other deployment answered before, or none that is still there.
    #[error(
        "no deployment that answered before is still there: name one of those of `cloister deployments`"
    )]
    NoneBefore,
    /// The deployment answers.
    #[error("deployment {0} answers requests: let others answer first")]
    Answers(DeploymentId),
    /// There is no canary.
    #[error("no canary of the app is under way")]
    NoCanary,
    /// The shares are not possible.
    #[error(transparent)]
    Traffic(#[from] TrafficError),
    /// The changes are not possible.
    #[error(transparent)]
    Changes(#[from] AppChangesError),
    /// The app is not as the caller has seen it.
    #[error(transparent)]
    Unexpected(#[from] Unexpected),
    /// The tenant would have more than it may.
    #[error(transparent)]
    Quota(#[from] QuotaError),
    /// A deployment is not ready to answer.
    #[error(transparent)]
    Deploy(#[from] DeployError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What is to be changed, and what the history will say of it.
#[derive(Debug, Clone)]
pub(super) struct Shift {
    pub(super) action: ReleaseAction,
    pub(super) deployment: DeploymentId,
    pub(super) traffic: Traffic,
    /// The deployment that the app stands on from then on.
    pub(super) active: DeploymentId,
    pub(super) why: Option<String>,
    /// The canary that is under way from then on.
    pub(super) canary: Option<CanaryRecord>,
}

impl Shift {
    /// One deployment answers everything.
    fn all_to(action: ReleaseAction, deployment: DeploymentId) -> Self {
        Self {
            action,
            deployment,
            traffic: Traffic::all_to(deployment),
            active: deployment,
            why: None,
            canary: None,
        }
    }
}

impl Engine {
    /// An app that there is.
    ///
    /// # Errors
    /// That there is none, or when the store cannot be read.
    pub async fn app(
        &self,
        tenant: &TenantName,
        app: &AppName,
    ) -> Result<Stored<AppRecord>, ReleaseError> {
        let key = AppRecord::at(tenant, app);
        let found = self.ask(move |records| records.get(&key)).await?;
        found.ok_or_else(|| ReleaseError::AppUnknown(tenant.clone(), app.clone()))
    }

    /// Lets several deployments share an app's requests, or one answer them all.
    ///
    /// # Errors
    /// Why not; nothing was changed then.
    pub async fn set_traffic(
        &self,
        origin: &Origin,
        tenant: &TenantName,
        app: &AppName,
        expected: Expected,
        traffic: Traffic,
    ) -> Result<Stored<AppRecord>, ReleaseError> {
        traffic.check()?;
        let key = (tenant.clone(), app.clone());
        let _turn = self.turn(&key).await;
        let before = self.app(tenant, app).await?;
        expected.check(Some(before.revision))?;
        let main = traffic.main().unwrap_or(before.record.active);
        let action = match traffic.shares.len() {
            1 => ReleaseAction::Promote,
            _ => ReleaseAction::Split,
        };
        let shift = Shift {
            traffic,
            ..Shift::all_to(action, main)
        };
        self.shift(origin, &key, shift).await
    }

    /// Lets one deployment answer all of an app's requests.
    ///
    /// # Errors
    /// Why not; nothing was changed then.
    pub async fn promote(
        &self,
        origin: &Origin,
        tenant: &TenantName,
        app: &AppName,
        deployment: DeploymentId,
    ) -> Result<Stored<AppRecord>, ReleaseError> {
        let key = (tenant.clone(), app.clone());
        let _turn = self.turn(&key).await;
        let shift = Shift::all_to(ReleaseAction::Promote, deployment);
        self.shift(origin, &key, shift).await
    }

    /// Lets an older deployment answer again: the one that answered before, where none is named. A canary that is under way is
    /// given up then.
    ///
    /// # Errors
    /// Why not; nothing was changed then.
    pub async fn rollback(
        &self,
        origin: &Origin,
        tenant: &TenantName,
        app: &AppName,
        to: Option<DeploymentId>,
    ) -> Result<Stored<AppRecord>, ReleaseError> {
        let key = (tenant.clone(), app.clone());
        let _turn = self.turn(&key).await;
        let before = self.app(tenant, app).await?.record;
        let to = match to {
            Some(to) => to,
            None => {
                let at = CanaryRecord::at(tenant, app);
                if let Some(canary) = self.ask(move |records| records.get(&at)).await? {
                    let why = "a rollback was asked for".to_owned();
                    return self
                        .shift(origin, &key, given_up(&canary.record, why))
                        .await;
                }
                let found = self.ask(move |records| answered_before(records, &before));
                found.await?.ok_or(ReleaseError::NoneBefore)?
            }
        };
        let shift = Shift::all_to(ReleaseAction::Rollback, to);
        self.shift(origin, &key, shift).await
    }

    /// Changes who answers. The caller has the turn of the app. A canary that is under way and not in `shift` ends.
    pub(super) async fn shift(
        &self,
        origin: &Origin,
        key: &AppKey,
        shift: Shift,
    ) -> Result<Stored<AppRecord>, ReleaseError> {
        let _files = self.files.read().await;
        let wanted: BTreeSet<_> = shift.traffic.shares.iter().map(|s| s.deployment).collect();
        let (mut warming, mut targets) = (Vec::new(), Vec::new());
        let (_, missing) = self.targets_of(key, &wanted);
        for number in missing {
            let target = self.warm_again(key, number).await?;
            targets.push(Arc::clone(&target));
            warming.push(Warming {
                engine: self,
                target: Some(target),
            });
        }
        let who = origin.who().to_owned();
        let (at, time) = (key.clone(), origin.time());
        let plan = {
            let shift = shift.clone();
            move |change: &mut Change<'_>| {
                let line = Release {
                    time,
                    who: who.clone(),
                    action: shift.action,
                    deployment: shift.deployment,
                    traffic: shift.traffic.clone(),
                    why: shift.why.clone(),
                };
                put_shift(change, &at, &shift, line)
            }
        };
        let (app, revision) = self.change_at(origin, plan).await?;
        for warm in &mut warming {
            warm.target = None;
        }
        self.serve_app(&app, targets);
        let (tenant, name) = key;
        tracing::info!(%tenant, app = %name, traffic = %shift.traffic, action = %shift.action, "traffic changed");
        self.canary_changed(tenant, name, shift.canary);
        let revision = revision.unwrap_or(Revision(0));
        Ok(Stored {
            record: app,
            revision,
        })
    }

    /// Has a deployment ready to answer that does not answer now.
    async fn warm_again(
        &self,
        (tenant, app): &AppKey,
        number: DeploymentId,
    ) -> Result<Arc<Target>, ReleaseError> {
        let key = DeploymentRecord::at(tenant, app, number);
        let found = self.ask(move |records| records.get(&key)).await?;
        let unknown = || ReleaseError::DeploymentUnknown(app.clone(), number);
        let target = self.target_of(found.ok_or_else(unknown)?.record).await?;
        let warmed = self.sandboxes.warm(Arc::clone(&target)).await;
        warmed.map_err(DeployError::from)?;
        Ok(target)
    }

    /// Changes what an app may take, and how many deployments of it are kept.
    ///
    /// # Errors
    /// Why not; nothing was changed then.
    pub async fn change_app(
        &self,
        origin: &Origin,
        tenant: &TenantName,
        app: &AppName,
        expected: Expected,
        changes: AppChanges,
    ) -> Result<Stored<AppRecord>, ReleaseError> {
        changes.check()?;
        let key = (tenant.clone(), app.clone());
        let _turn = self.turn(&key).await;
        let before = self.app(tenant, app).await?;
        expected.check(Some(before.revision))?;
        let record = AppRecord {
            policy: changes.policy.unwrap_or(before.record.policy.clone()),
            keep: changes.keep.or(before.record.keep),
            ..before.record.clone()
        };
        if record == before.record {
            return Ok(before);
        }
        let put = {
            let record = record.clone();
            move |change: &mut Change<'_>| change.put(&record)
        };
        let ((), revision) = self.change_at(origin, put).await?;
        self.serve_app(&record, []);
        let revision = revision.unwrap_or(before.revision);
        Ok(Stored { record, revision })
    }

    /// Deletes a deployment that does not answer for its app. One that answers under a name of its own loses that.
    ///
    /// # Errors
    /// Why not; nothing was changed then.
    pub async fn delete_deployment(
        &self,
        origin: &Origin,
        tenant: &TenantName,
        app: &AppName,
        number: DeploymentId,
    ) -> Result<(), ReleaseError> {
        let key = (tenant.clone(), app.clone());
        let _turn = self.turn(&key).await;
        let plan = move |change: &mut Change<'_>| delete(change, &key, number);
        let after = self.change(origin, plan).await?;
        self.serve_app(&after, []);
        self.forget_secrets(tenant, app).await;
        self.collect_later().await;
        Ok(())
    }
}

/// The deployment that answered before the one that answers now, if it is still there.
fn answered_before(records: &Records, app: &AppRecord) -> Result<Option<DeploymentId>, StoreError> {
    let of = HistoryRecord::of(&app.tenant, &app.app);
    let history = records.page(&of, None, LOOK_BACK)?.items;
    for stored in history {
        let Some(main) = stored.record.release.traffic.main() else {
            continue;
        };
        let key = DeploymentRecord::at(&app.tenant, &app.app, main);
        if main != app.active && records.get(&key)?.is_some() {
            return Ok(Some(main));
        }
    }
    Ok(None)
}

/// Writes who answers, and the line of the history.
fn put_shift(
    change: &mut Change<'_>,
    (tenant, app): &AppKey,
    shift: &Shift,
    line: Release,
) -> Result<AppRecord, ReleaseError> {
    let before = change.get(&AppRecord::at(tenant, app))?;
    let unknown = || ReleaseError::AppUnknown(tenant.clone(), app.clone());
    let mut after = before.ok_or_else(unknown)?;
    for share in &shift.traffic.shares {
        let key = DeploymentRecord::at(tenant, app, share.deployment);
        if change.get(&key)?.is_none() {
            let app = app.clone();
            return Err(ReleaseError::DeploymentUnknown(app, share.deployment));
        }
    }
    after.active = shift.active;
    after.traffic = Some(shift.traffic.clone());
    let key = CanaryRecord::at(tenant, app);
    let running = change.get(&key)?;
    match (&shift.canary, running) {
        (Some(canary), _) => change.put(canary)?,
        (None, Some(running)) => {
            change.delete(&key);
            let by_itself = matches!(
                line.action,
                ReleaseAction::CanaryAborted | ReleaseAction::CanaryFinished
            );
            if !by_itself {
                let ended = Release {
                    action: ReleaseAction::CanaryAborted,
                    deployment: running.deployment,
                    why: Some(format!("{} of {} was asked for", line.action, line.traffic)),
                    ..line.clone()
                };
                put_release(change, &after, ended)?;
            }
        }
        (None, None) => {}
    }
    change.put(&after)?;
    put_release(change, &after, line)?;
    Ok(after)
}

/// Deletes a deployment; what the app is then.
fn delete(
    change: &mut Change<'_>,
    (tenant, app): &AppKey,
    number: DeploymentId,
) -> Result<AppRecord, ReleaseError> {
    let before = change.get(&AppRecord::at(tenant, app))?;
    let unknown = || ReleaseError::AppUnknown(tenant.clone(), app.clone());
    let mut after = before.ok_or_else(unknown)?;
    let key = DeploymentRecord::at(tenant, app, number);
    if change.get(&key)?.is_none() {
        return Err(ReleaseError::DeploymentUnknown(app.clone(), number));
    }
    if after.traffic().has(number) || after.active == number {
        return Err(ReleaseError::Answers(number));
    }
    after.previews.remove(&number);
    after.deployments = after.deployments.saturating_sub(1);
    change.put(&after)?;
    change.delete(&key);
    let cost = Cost {
        deployments: -1,
        ..Cost::default()
    };
    usage::charge::<ReleaseError>(change, tenant, cost)?;
    Ok(after)
}
