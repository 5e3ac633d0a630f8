//! Removes what nothing refers to any more: components, artifacts, logs.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use platform_model::Digest;
use time::{Duration, OffsetDateTime};

use super::usage::{self, Cost, bytes};
use super::{DeployError, Engine, lock};
use crate::store::records::{AppRecord, ComponentRecord, DeploymentRecord, Prefix, Record as _};
use crate::store::{Change, Records};

/// How long a component that no deployment uses is kept while the node runs: its deploy may be on its way.
const GRACE: Duration = Duration::hours(1);

impl Engine {
    /// At the start there are no deploys on their way: whatever no deployment refers to is left over.
    pub(super) async fn collect_at_start(&self) -> Result<(), DeployError> {
        self.collect_components(Duration::ZERO).await?;
        let removed = self.collect_artifacts().await?;
        if removed > 0 {
            tracing::info!(removed, "removed artifacts that no app uses");
        }
        let apps = self
            .ask(|records| records.all::<AppRecord>(&Prefix::all()))
            .await?;
        let names = apps.into_iter().map(|app| (app.tenant, app.app)).collect();
        self.logs.keep_only(&names)?;
        Ok(())
    }

    /// While the node runs: does what can be done now, and leaves to the next time what cannot.
    pub(super) async fn collect_later(&self) {
        if let Err(error) = self.collect_components(GRACE).await {
            tracing::warn!(%error, "could not remove components that no app uses");
        }
    }

    async fn collect_components(&self, grace: Duration) -> Result<(), DeployError> {
        // A deploy or an upload is on its way: it could be of a component that is to be removed.
        let Ok(_files) = self.files.try_write() else {
            return Ok(());
        };
        let before = OffsetDateTime::now_utc() - grace;
        let (kept, forgotten) = self
            .with_records(move |records| forget_unused(records, before))
            .await?;
        let removed = self.components.collect(|digest| kept.contains(digest))?;
        if removed + forgotten > 0 {
            tracing::info!(removed, "removed components that no app uses");
        }
        if forgotten > 0 {
            self.collect_artifacts().await?;
        }
        Ok(())
    }

    /// Removes artifacts of components that nobody has any more. Nobody compiles meanwhile.
    async fn collect_artifacts(&self) -> Result<usize, DeployError> {
        let components = self.ask(|records| records.all::<ComponentRecord>(&Prefix::all()));
        let names = components.await?.into_iter();
        let names = names.filter_map(|component| component.artifact);
        let mut used: HashSet<PathBuf> = names.map(|name| self.artifacts.join(name)).collect();
        used.extend(lock(&self.serving).artifacts());
        Ok(remove_others(&self.artifacts, &used)?)
    }
}

/// Components whose records go in one change: each with its tenant's usage.
const AT_ONCE: usize = 20;

/// Forgets the components that were uploaded before and that no deployment uses: those that are kept, and how many are not.
fn forget_unused(
    records: &Records,
    before: OffsetDateTime,
) -> Result<(HashSet<Digest>, usize), DeployError> {
    let deployments = records.all::<DeploymentRecord>(&Prefix::all())?;
    let used: HashSet<_> = deployments
        .iter()
        .map(|deployment| (&deployment.tenant, deployment.digest))
        .collect();
    let unused = |component: &ComponentRecord| {
        !used.contains(&(&component.tenant, component.digest)) && component.uploaded_at <= before
    };
    let components = records.all::<ComponentRecord>(&Prefix::all())?;
    let (forgotten, kept): (Vec<_>, Vec<_>) = components.into_iter().partition(unused);
    for some in forgotten.chunks(AT_ONCE) {
        records.change(|change| forget(change, some))?;
    }
    let kept = kept
        .into_iter()
        .map(|component| component.digest)
        .chain(used.into_iter().map(|(_, digest)| digest))
        .collect();
    Ok((kept, forgotten.len()))
}

/// Forgets components that are still as they were found.
fn forget(change: &mut Change<'_>, components: &[ComponentRecord]) -> Result<(), DeployError> {
    for component in components {
        if change.get(&component.key())?.as_ref() != Some(component) {
            continue;
        }
        change.delete(&component.key());
        let cost = Cost {
            disk_bytes: -bytes(component.disk_bytes()),
            ..Cost::default()
        };
        usage::charge::<DeployError>(change, &component.tenant, cost)?;
    }
    Ok(())
}

/// Removes every file of a folder that is not in `used` and does not lie beside one that is, with the same name up to its
/// extension; tells how many.
fn remove_others(folder: &Path, used: &HashSet<PathBuf>) -> io::Result<usize> {
    let mut removed = 0;
    let used: HashSet<PathBuf> = used.iter().map(|path| path.with_extension("")).collect();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if !used.contains(&entry.path().with_extension("")) && entry.file_type()?.is_file() {
            fs::remove_file(entry.path())?;
            removed += 1;
        }
    }
    Ok(removed)
}
