//! What is done from time to time: what is remembered of requests and of changes is kept within bounds.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use time::OffsetDateTime;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{Engine, REMEMBERED};
use crate::store::records::{
    AppRecord, AuditId, AuditRecord, HistoryRecord, IdempotencyRecord, Key, Prefix, Record,
    TenantAuditRecord, TenantRecord,
};
use crate::store::{Records, StoreError};

/// How often it is done where nothing asks for it sooner.
const PERIOD: Duration = Duration::from_secs(3_600);

/// Lines of audit logs after which it is done sooner.
const LINES: u64 = 2_000;

/// Most lines of the node's audit log, and of a tenant's. The oldest go.
const NODE_LINES: usize = 100_000;
const TENANT_LINES: usize = 10_000;

/// Most lines of an app's history. The oldest go.
const APP_LINES: usize = 1_000;

/// How long a line of an audit log is kept.
const LINE_AGE: time::Duration = time::Duration::days(400);

/// Most requests of one token that are remembered because of their idempotency keys. The oldest go.
const REQUESTS: usize = 10_000;

/// Records that are read, and deleted, at once.
const PAGE: usize = 100;

/// When it is to be done.
#[derive(Debug, Default)]
pub(super) struct Housekeeping {
    lines: AtomicU64,
    wanted: Notify,
}

impl Housekeeping {
    /// Counts a line of an audit log.
    pub(super) fn line(&self) {
        if self.lines.fetch_add(1, Ordering::Relaxed) % LINES == LINES - 1 {
            self.wanted.notify_one();
        }
    }
}

impl Engine {
    /// Keeps what is remembered within bounds, until `stop` is cancelled.
    pub async fn keep_house(self: Arc<Self>, stop: CancellationToken) {
        if let Err(error) = self.end_rotation().await {
            tracing::error!(%error, "values that are sealed with an older key could not be sealed anew");
        }
        loop {
            if let Err(error) = self.with_records(|records| tidy(records, &BOUNDS)).await {
                tracing::warn!(%error, "could not tidy up the store");
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.housekeeping.wanted.notified() => {}
                () = tokio::time::sleep(PERIOD) => {}
            }
        }
    }
}

/// How much is kept.
struct Bounds {
    node_lines: usize,
    tenant_lines: usize,
    app_lines: usize,
    requests: usize,
}

const BOUNDS: Bounds = Bounds {
    node_lines: NODE_LINES,
    tenant_lines: TENANT_LINES,
    app_lines: APP_LINES,
    requests: REQUESTS,
};

/// Deletes what is more than is kept.
fn tidy(records: &Records, bounds: &Bounds) -> Result<(), StoreError> {
    let now = OffsetDateTime::now_utc();
    let nanos = (now - LINE_AGE).unix_timestamp_nanos();
    let oldest = AuditId(u64::try_from(nanos).unwrap_or(0));
    let lines = bounds.node_lines;
    trim(records, &Prefix::<AuditRecord>::all(), lines, |line| {
        line.id < oldest
    })?;
    for tenant in records.all::<TenantRecord>(&Prefix::all())? {
        let of = TenantAuditRecord::of(&tenant.tenant);
        trim(records, &of, bounds.tenant_lines, |line| line.id < oldest)?;
    }
    for app in records.all::<AppRecord>(&Prefix::all())? {
        let of = HistoryRecord::of(&app.tenant, &app.app);
        trim(records, &of, bounds.app_lines, |_| false)?;
    }
    forget_requests(records, bounds.requests, now)
}

/// Deletes the records after the first `most`, and those that are `old`.
fn trim<R: Record>(
    records: &Records,
    prefix: &Prefix<R>,
    most: usize,
    old: impl Fn(&R) -> bool,
) -> Result<(), StoreError> {
    let (mut seen, mut after) = (0, None);
    loop {
        let page = records.page(prefix, after.as_deref(), PAGE)?;
        let mut gone = Vec::new();
        for stored in page.items {
            seen += 1;
            if seen > most || old(&stored.record) {
                gone.push(stored.record.key());
            }
        }
        delete(records, &gone)?;
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(()),
        }
    }
}

/// Forgets requests that were carried out too long ago, and of each token those beyond the last `most`.
fn forget_requests(records: &Records, most: usize, now: OffsetDateTime) -> Result<(), StoreError> {
    let mut kept = BTreeMap::<String, Vec<(OffsetDateTime, Key<IdempotencyRecord>)>>::new();
    let mut after = None;
    loop {
        let page = records.page(&Prefix::<IdempotencyRecord>::all(), after.as_deref(), PAGE)?;
        let mut gone = Vec::new();
        for stored in page.items {
            let record = stored.record;
            if record.done_at + REMEMBERED <= now {
                gone.push(record.key());
            } else {
                let (key, who) = (record.key(), record.once.who);
                kept.entry(who).or_default().push((record.done_at, key));
            }
        }
        delete(records, &gone)?;
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    for mut requests in kept.into_values() {
        let more = requests.len().saturating_sub(most);
        requests.sort_unstable_by_key(|(done_at, _)| *done_at);
        let gone: Vec<_> = requests
            .into_iter()
            .take(more)
            .map(|(_, key)| key)
            .collect();
        delete(records, &gone)?;
    }
    Ok(())
}

fn delete<R: Record>(records: &Records, keys: &[Key<R>]) -> Result<(), StoreError> {
    for some in keys.chunks(PAGE) {
        records.change(|change| {
            some.iter().for_each(|key| change.delete(key));
            Ok::<_, StoreError>(())
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use platform_model::{Audit, DeploymentId, Outcome, Policy, Release, ReleaseAction, Traffic};

    use super::*;
    use crate::store::SledStore;
    use crate::store::records::OnceKey;

    fn put<R: Record>(records: &Records, record: &R) {
        let put = |change: &mut crate::store::Change<'_>| change.put(record);
        records.change(put).unwrap();
    }

    #[test]
    fn the_latest_lines_of_a_history_stay() {
        let folder = tempfile::tempdir().unwrap();
        let records = Records::new(Arc::new(SledStore::open(folder.path()).unwrap()));
        let app = AppRecord {
            tenant: "acme".parse().unwrap(),
            app: "shop".parse().unwrap(),
            active: DeploymentId(1),
            traffic: None,
            previews: std::collections::BTreeSet::new(),
            policy: Policy::default(),
            keep: None,
            last: DeploymentId(3),
            deployments: 3,
            created_at: OffsetDateTime::UNIX_EPOCH,
        };
        put(&records, &app);
        for number in 1..=3 {
            let deployment = DeploymentId(number);
            let release = Release {
                time: OffsetDateTime::UNIX_EPOCH,
                who: "x".to_owned(),
                action: ReleaseAction::Deploy,
                deployment,
                traffic: Traffic::all_to(deployment),
                why: None,
            };
            let (tenant, app) = (app.tenant.clone(), app.app.clone());
            let id = AuditId(number);
            let line = HistoryRecord {
                tenant,
                app,
                id,
                release,
            };
            put(&records, &line);
        }
        let bounds = Bounds {
            app_lines: 2,
            ..BOUNDS
        };
        tidy(&records, &bounds).unwrap();
        let of = HistoryRecord::of(&app.tenant, &app.app);
        let left = records.all(&of).unwrap().into_iter();
        let left: Vec<_> = left.map(|line| line.release.deployment.0).collect();
        assert_eq!(left, [3, 2]);
    }

    #[test]
    fn the_latest_stay() {
        let folder = tempfile::tempdir().unwrap();
        let records = Records::new(Arc::new(SledStore::open(folder.path()).unwrap()));
        let now = OffsetDateTime::now_utc();
        let tenant = TenantRecord::new("acme".parse().unwrap(), now);
        put(&records, &tenant);
        let age = |days: i64| now - time::Duration::days(days);
        for (days, what) in [(500, "old"), (3, "c"), (2, "b"), (1, "a")] {
            let audit = Audit {
                time: age(days),
                who: "x".to_owned(),
                from: None,
                what: what.to_owned(),
                tenant: Some(tenant.tenant.clone()),
                outcome: Outcome::Done,
                status: None,
                code: None,
                request_id: None,
            };
            let id = AuditId(u64::try_from(age(days).unix_timestamp_nanos()).unwrap());
            let log = tenant.tenant.clone();
            put(
                &records,
                &AuditRecord {
                    id,
                    audit: audit.clone(),
                },
            );
            put(&records, &TenantAuditRecord { log, id, audit });
        }
        for hours in [0, 1, 2, 30] {
            let key = format!("{hours}");
            let (tenant, who) = (None, "x".to_owned());
            put(
                &records,
                &IdempotencyRecord {
                    once: OnceKey { tenant, who, key },
                    fingerprint: String::new(),
                    done_at: now - time::Duration::hours(hours),
                    answer: None,
                },
            );
        }
        let bounds = Bounds {
            node_lines: 3,
            tenant_lines: 2,
            app_lines: 2,
            requests: 2,
        };
        tidy(&records, &bounds).unwrap();
        let node = records.all::<AuditRecord>(&Prefix::all()).unwrap();
        let whats = |lines: Vec<Audit>| lines.into_iter().map(|line| line.what).collect::<String>();
        assert_eq!(
            whats(node.into_iter().map(|line| line.audit).collect()),
            "abc"
        );
        let of = TenantAuditRecord::of(&tenant.tenant);
        let lines = records.all(&of).unwrap();
        assert_eq!(
            whats(lines.into_iter().map(|line| line.audit).collect()),
            "ab"
        );
        let requests = records.all::<IdempotencyRecord>(&Prefix::all()).unwrap();
        let keys: String = requests
            .into_iter()
            .map(|request| request.once.key)
            .collect();
        assert_eq!(keys, "01");
    }
}
