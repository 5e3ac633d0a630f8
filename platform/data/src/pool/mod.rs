//! The VMs of the node: which deployments exist, which worker holds each, and who looks after their deadlines.

pub(crate) mod deployment;
pub(crate) mod worker;

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use platform_model::{TenantName, VmStatus};
use sandbox_channel::VmId;

use self::deployment::Deployment;
use self::worker::Worker;
use crate::link::drain::Outgoing;
use crate::link::{Link, SWEEP};
use crate::sync::lock;
use crate::target::TargetKey;
use crate::usage::{Accounts, Usage};
use crate::{DataStatus, LogSink, Target};

/// Longest time that a deployment which left the table has for its requests.
const RETIRE_TIME: Duration = Duration::from_secs(600);

/// What every deployment needs.
pub(crate) struct Shared {
    pub(crate) logs: Arc<dyn LogSink>,
    pub(crate) egress: Arc<dyn Outgoing>,
    pub(crate) accounts: Accounts,
    next: AtomicU64,
    links: Mutex<Vec<Weak<Link>>>,
}

impl Shared {
    /// A number for a VM, never used before.
    pub(crate) fn next_vm(&self) -> VmId {
        VmId(self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// Has the deadlines of a link looked after.
    pub(crate) fn watch(&self, link: &Arc<Link>) {
        lock(&self.links).push(Arc::downgrade(link));
    }

    async fn sweep(self: Arc<Self>) {
        let mut tick = tokio::time::interval(SWEEP);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let mut links = lock(&self.links);
            links.retain(|link| link.strong_count() > 0);
            let links: Vec<Weak<Link>> = links.clone();
            for link in links.iter().filter_map(Weak::upgrade) {
                link.sweep();
            }
        }
    }
}

/// A deployment, and whether the route table has ever named it.
struct Entry {
    deployment: Arc<Deployment>,
    published: bool,
}

/// The pool.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    executable: PathBuf,
    workers: Mutex<BTreeMap<TenantName, Arc<Worker>>>,
    deployments: Mutex<BTreeMap<TargetKey, Entry>>,
}

impl Pool {
    /// An empty pool; `executable` is what workers are started from.
    pub(crate) fn new(
        executable: PathBuf,
        logs: Arc<dyn LogSink>,
        egress: Arc<dyn Outgoing>,
    ) -> Self {
        let shared = Arc::new(Shared {
            logs,
            egress,
            accounts: Accounts::default(),
            next: AtomicU64::new(1),
            links: Mutex::default(),
        });
        tokio::spawn(Arc::clone(&shared).sweep());
        Pool {
            shared,
            executable,
            workers: Mutex::default(),
            deployments: Mutex::default(),
        }
    }

    fn worker(&self, tenant: &TenantName) -> Arc<Worker> {
        let mut workers = lock(&self.workers);
        let worker = workers
            .entry(tenant.clone())
            .or_insert_with(|| Arc::new(Worker::new(tenant.clone(), self.executable.clone())));
        Arc::clone(worker)
    }

    /// What apps and tenants have taken.
    pub(crate) fn accounts(&self) -> &Accounts {
        &self.shared.accounts
    }

    /// The deployment of a target, made if there is none.
    pub(crate) fn deployment(&self, target: &Arc<Target>, publish: bool) -> Arc<Deployment> {
        let worker = self.worker(&target.tenant);
        let mut deployments = lock(&self.deployments);
        let entry = deployments.entry(target.key()).or_insert_with(|| Entry {
            deployment: Deployment::new(Arc::clone(target), worker, Arc::clone(&self.shared)),
            published: false,
        });
        entry.published |= publish;
        Arc::clone(&entry.deployment)
    }

    /// What a deployment that runs has taken.
    pub(crate) fn usage(&self, key: &TargetKey) -> Option<Arc<Usage>> {
        let deployments = lock(&self.deployments);
        let entry = deployments.get(key)?;
        Some(Arc::clone(&entry.deployment.usage))
    }

    /// Stops a deployment that was never published.
    pub(crate) fn discard(&self, key: &TargetKey) {
        let mut deployments = lock(&self.deployments);
        if deployments.get(key).is_some_and(|entry| !entry.published)
            && let Some(entry) = deployments.remove(key)
        {
            entry.deployment.stop();
        }
    }

    /// Retires what was published and is not in `kept`.
    pub(crate) fn keep(&self, kept: &HashSet<TargetKey>) {
        let mut deployments = lock(&self.deployments);
        let gone: Vec<TargetKey> = deployments
            .iter()
            .filter(|(key, entry)| entry.published && !kept.contains(*key))
            .map(|(key, _)| key.clone())
            .collect();
        for key in gone {
            if let Some(entry) = deployments.remove(&key) {
                tokio::spawn(async move { entry.deployment.retire(RETIRE_TIME).await });
            }
        }
    }

    /// Every VM and every worker. Waits half a second at most.
    pub(crate) async fn status(&self) -> DataStatus {
        let deployments: Vec<Arc<Deployment>> = lock(&self.deployments)
            .values()
            .map(|entry| Arc::clone(&entry.deployment))
            .collect();
        let workers: Vec<Arc<Worker>> = lock(&self.workers).values().cloned().collect();
        let stats =
            futures_util::future::join_all(workers.iter().map(|worker| worker.stats())).await;
        let mut vms = Vec::with_capacity(deployments.len());
        for deployment in deployments {
            let (state, requests, traps, restores) = deployment.figures();
            let stats = deployment
                .vm()
                .and_then(|vm| stats.iter().find_map(|worker| worker.get(&vm)));
            vms.push(VmStatus {
                tenant: deployment.target.tenant.clone(),
                app: deployment.target.app.clone(),
                deployment: deployment.target.deployment,
                state,
                requests,
                traps,
                restores,
                exits: stats.map_or(0, |stats| stats.exits),
                resident_bytes: stats.map_or(0, |stats| stats.resident),
            });
        }
        DataStatus {
            vms,
            workers: workers.iter().map(|worker| worker.status()).collect(),
        }
    }

    /// Stops everything.
    pub(crate) async fn shut_down(&self, deadline: Duration) {
        let deployments = std::mem::take(&mut *lock(&self.deployments));
        let retired = deployments
            .values()
            .map(|entry| entry.deployment.retire(deadline));
        futures_util::future::join_all(retired).await;
        for worker in lock(&self.workers).values() {
            worker.kill();
        }
    }
}
