//! What a new deployment is in the store: its record, what the app is from then on, a line of the history, and the end of
//! what is too old to be kept. All of it is one change.

use platform_model::{AppName, DeploymentId, Policy, Release, ReleaseAction, TenantName, Traffic};

use super::deploy::Mode;
use super::usage::{self, Cost, bytes};
use super::{DeployError, origin, tenants};
use crate::store::records::{
    AppRecord, CanaryRecord, ComponentRecord, DeploymentRecord, HistoryRecord, LastRecord,
    Record as _, SettingsRecord,
};
use crate::store::{Change, Records, StoreError};

/// Old deployments that go in one change at most: the rest go with the next.
const GONE_AT_ONCE: usize = 20;

/// Names of their own that deployments of an app may have: the oldest loses its own.
const MAX_PREVIEWS: usize = 20;

/// A new deployment.
pub(super) struct Commit {
    pub(super) deployment: DeploymentRecord,
    /// Name of the file that was compiled.
    pub(super) artifact: Option<String>,
    pub(super) artifact_bytes: u64,
    pub(super) mode: Mode,
    pub(super) who: String,
}

/// The number that the next deployment of an app gets.
pub(super) fn next_number(
    records: &Records,
    tenant: &TenantName,
    app: &AppName,
) -> Result<DeploymentId, StoreError> {
    let next = records.change(|change| number_after(change, tenant, app))?;
    Ok(next.0)
}

fn number_after(
    change: &mut Change<'_>,
    tenant: &TenantName,
    app: &AppName,
) -> Result<DeploymentId, StoreError> {
    let last = match change.get(&AppRecord::at(tenant, app))? {
        Some(app) => app.last,
        None => {
            let last = change.get(&LastRecord::at(tenant, app))?;
            last.map_or(DeploymentId(0), |last| last.last)
        }
    };
    Ok(DeploymentId(last.0 + 1))
}

impl Commit {
    /// Writes it. The app is created where it is not there. What the app is from then on, and its canary.
    pub(super) fn put(
        &self,
        change: &mut Change<'_>,
    ) -> Result<(AppRecord, Option<CanaryRecord>), DeployError> {
        let deployment = &self.deployment;
        let (tenant, app) = (&deployment.tenant, &deployment.app);
        let number = deployment.deployment;
        if number != number_after(change, tenant, app)? {
            return Err(DeployError::NumberTaken(number));
        }
        // The tenant of a component that was uploaded is there; the default one at the latest now.
        tenants::need(change, tenant, deployment.created_at, false)?;
        let before = change.get(&AppRecord::at(tenant, app))?;
        let known = before.is_some() || change.get(&SettingsRecord::at(tenant, app))?.is_some();
        let mut after = before.unwrap_or_else(|| AppRecord {
            tenant: tenant.clone(),
            app: app.clone(),
            active: number,
            traffic: None,
            previews: std::collections::BTreeSet::new(),
            policy: Policy::default(),
            keep: None,
            last: number,
            deployments: 0,
            created_at: deployment.created_at,
        });
        let canary = self.release(change, &mut after)?;
        after.last = number;
        after.deployments += 1;
        let gone = forget_old(change, &after)?;
        after.deployments = after.deployments.saturating_sub(gone);
        let cost = Cost {
            apps: (!known).into(),
            deployments: 1 - i64::try_from(gone).unwrap_or(0),
            disk_bytes: self.disk_cost(change)?,
            ..Cost::default()
        };
        usage::charge::<DeployError>(change, tenant, cost)?;
        change.put(&after)?;
        change.put(deployment)?;
        Ok((after, canary))
    }

    /// Says who answers from now on, and writes it into the history. A canary that is under way ends.
    fn release(
        &self,
        change: &mut Change<'_>,
        app: &mut AppRecord,
    ) -> Result<Option<CanaryRecord>, DeployError> {
        let deployment = &self.deployment;
        let number = deployment.deployment;
        let key = CanaryRecord::at(&app.tenant, &app.app);
        let running = change.get(&key)?;
        let (action, canary) = match &self.mode {
            Mode::Preview => {
                app.previews.insert(number);
                while app.previews.len() > MAX_PREVIEWS {
                    app.previews.pop_first();
                }
                put_release(
                    change,
                    app,
                    self.line(ReleaseAction::Preview, app.traffic()),
                )?;
                return Ok(running);
            }
            Mode::Switch => {
                app.active = number;
                app.traffic = None;
                change.delete(&key);
                (ReleaseAction::Deploy, None)
            }
            Mode::Canary(plan) => {
                let sticky = app.traffic().sticky;
                let canary = CanaryRecord {
                    tenant: app.tenant.clone(),
                    app: app.app.clone(),
                    deployment: number,
                    base: Traffic {
                        sticky,
                        ..Traffic::all_to(app.active)
                    },
                    plan: plan.clone(),
                    step: 0,
                    started_at: deployment.created_at,
                    step_started_at: deployment.created_at,
                };
                app.traffic = Some(canary.traffic());
                change.put(&canary)?;
                (ReleaseAction::CanaryStarted, Some(canary))
            }
        };
        if let Some(running) = running {
            let release = Release {
                action: ReleaseAction::CanaryAborted,
                deployment: running.deployment,
                traffic: app.traffic(),
                why: Some(format!(
                    "deployment {number} was made while it was under way"
                )),
                ..self.line(action, app.traffic())
            };
            put_release(change, app, release)?;
        }
        let mut line = self.line(action, app.traffic());
        let plan = canary.as_ref().map(|canary| {
            let steps: Vec<_> = canary
                .plan
                .steps
                .iter()
                .map(|step| format!("{step} %"))
                .collect();
            let (seconds, rule) = (canary.plan.step_seconds, canary.plan.abort_if);
            format!("{}, each {seconds} s, given up if {rule}", steps.join(", "))
        });
        let why: Vec<_> = plan.into_iter().chain(line.why).collect();
        line.why = (!why.is_empty()).then(|| why.join("; "));
        put_release(change, app, line)?;
        Ok(canary)
    }

    fn line(&self, action: ReleaseAction, traffic: Traffic) -> Release {
        Release {
            time: self.deployment.created_at,
            who: self.who.clone(),
            action,
            deployment: self.deployment.deployment,
            traffic,
            why: self.approved(),
        }
    }

    /// What it may have more, for the history.
    fn approved(&self) -> Option<String> {
        let growth = &self.deployment.growth;
        (!growth.is_empty()).then(|| format!("it may have more than before: {growth}"))
    }

    /// What the component costs more on the disk, now that it was compiled. Its record has the name of the file.
    fn disk_cost(&self, change: &mut Change<'_>) -> Result<i64, StoreError> {
        let deployment = &self.deployment;
        let key = ComponentRecord::at(&deployment.tenant, &deployment.digest);
        let Some(component) = change.get(&key)? else {
            return Ok(0);
        };
        let more = bytes(self.artifact_bytes) - bytes(component.artifact_bytes);
        let after = ComponentRecord {
            artifact_bytes: self.artifact_bytes,
            artifact: self.artifact.clone(),
            ..component.clone()
        };
        if after != component {
            change.put(&after)?;
        }
        Ok(more)
    }
}

/// Writes a line of an app's history.
pub(super) fn put_release(
    change: &mut Change<'_>,
    app: &AppRecord,
    release: Release,
) -> Result<(), StoreError> {
    change.put(&HistoryRecord {
        tenant: app.tenant.clone(),
        app: app.app.clone(),
        id: origin::next_id(release.time),
        release,
    })
}

/// Forgets the oldest deployments of an app beyond those that are kept; how many. Those that answer stay, and the one that
/// the app stands on. The new one is not in the store yet, and counts.
fn forget_old(change: &mut Change<'_>, app: &AppRecord) -> Result<u64, StoreError> {
    let kept = u64::from(app.keep());
    if app.deployments <= kept {
        return Ok(0);
    }
    let stay = app.answering();
    let of = DeploymentRecord::of(&app.tenant, &app.app);
    // The turn of the app is the caller's: nobody else deletes one, and a new one does not matter.
    let all = change.records().all(&of)?;
    let keep = usize::try_from(kept.saturating_sub(1)).unwrap_or(usize::MAX);
    let old = all.len().saturating_sub(keep);
    let gone = all
        .into_iter()
        .take(old)
        .filter(|record| !stay.contains(&record.deployment) && record.deployment != app.active);
    let mut count = 0;
    for record in gone.take(GONE_AT_ONCE) {
        change.delete(&record.key());
        count += 1;
    }
    Ok(count)
}
