//! The VMs of the node: which deployments exist, which worker holds each, and who looks after their deadlines.

pub(crate) mod deployment;
mod member;
mod pressure;
mod scale;
pub(crate) mod template;
pub(crate) mod worker;

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use platform_model::{TenantName, VmStatus};
use sandbox_channel::VmId;

use self::deployment::Deployment;
use self::pressure::Pressure;
use self::worker::Worker;
use crate::link::SWEEP;
use crate::link::drain::Outgoing;
use crate::metrics::Registry;
use crate::sync::lock;
use crate::target::TargetKey;
use crate::usage::Accounts;
use crate::{DataStatus, LogSink, Target};

/// Longest time that a deployment which left the table has for its requests.
const RETIRE_TIME: Duration = Duration::from_secs(600);

/// Of so many idle deployments, one gives up its VMs when memory is short.
const EVICTED_SHARE: usize = 8;

/// What every deployment needs.
pub(crate) struct Shared {
    pub(crate) logs: Arc<dyn LogSink>,
    pub(crate) egress: Arc<dyn Outgoing>,
    pub(crate) registry: Arc<Registry>,
    /// Where templates are, if there are any.
    pub(crate) templates: Option<PathBuf>,
    /// Those of the node.
    pub(crate) processors: u32,
    pub(crate) accounts: Accounts,
    next: AtomicU64,
    /// Deployments that have VMs or are about to.
    awake: Mutex<Vec<Weak<Deployment>>>,
}

impl Shared {
    /// A number for a VM, never used before.
    pub(crate) fn next_vm(&self) -> VmId {
        VmId(self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// Has a deployment looked after, for as long as it has VMs.
    pub(crate) fn awake(&self, deployment: &Arc<Deployment>) {
        let mut awake = lock(&self.awake);
        let one = Arc::downgrade(deployment);
        if !awake.iter().any(|other| other.ptr_eq(&one)) {
            awake.push(one);
        }
    }

    async fn sweep(self: Arc<Self>) {
        let mut tick = tokio::time::interval(SWEEP);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut last = tokio::time::Instant::now();
        let mut pressure = Pressure::new();
        loop {
            let now = tick.tick().await;
            let passed = now.saturating_duration_since(std::mem::replace(&mut last, now));
            // Not locked meanwhile: a deployment that wakes up enters itself.
            let mut awake = std::mem::take(&mut *lock(&self.awake));
            awake.retain(|deployment| {
                deployment
                    .upgrade()
                    .is_some_and(|deployment| deployment.sweep(passed, self.processors))
            });
            if pressure.is_short(passed) {
                give_up_idle(&awake);
            }
            let mut entered = lock(&self.awake);
            entered.retain(|one| !awake.iter().any(|other| other.ptr_eq(one)));
            entered.append(&mut awake);
        }
    }
}

/// Has the deployments that were idle for longest give up their VMs: some of them, as what they free is not seen at once.
fn give_up_idle(awake: &[Weak<Deployment>]) {
    let awake = awake.iter().filter_map(Weak::upgrade);
    let mut idle: Vec<_> = awake
        .filter_map(|deployment| Some((deployment.idle()?, deployment)))
        .collect();
    idle.sort_by_key(|(time, _)| std::cmp::Reverse(*time));
    idle.truncate(idle.len().div_ceil(EVICTED_SHARE));
    let evicted = idle.iter().filter(|(_, one)| one.evict()).count();
    if evicted > 0 {
        tracing::warn!(evicted, "memory is short: idle VMs are given up");
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
        registry: Arc<Registry>,
        templates: Option<PathBuf>,
    ) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, |n| n.get());
        let shared = Arc::new(Shared {
            logs,
            egress,
            registry,
            templates,
            processors: u32::try_from(processors).unwrap_or(u32::MAX),
            accounts: Accounts::default(),
            next: AtomicU64::new(1),
            awake: Mutex::default(),
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

    /// Requests of a deployment that have ended, and those of them that failed.
    pub(crate) fn outcomes(&self, key: &TargetKey) -> Option<(u64, u64)> {
        let deployments = lock(&self.deployments);
        let entry = deployments.get(key)?;
        Some(entry.deployment.counters.outcomes())
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

    /// Removes templates that belong to no deployment of the pool.
    pub(crate) fn clean_templates(&self) {
        let Some(folder) = &self.shared.templates else {
            return;
        };
        let deployments = lock(&self.deployments);
        let used: HashSet<&Path> = deployments
            .values()
            .filter_map(|entry| entry.deployment.template.path())
            .collect();
        template::clean(folder, &|path| used.contains(path));
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
            let Some(Entry { deployment, .. }) = deployments.remove(&key) else {
                continue;
            };
            let template = deployment.template.path();
            let mut others = deployments.values().map(|entry| &entry.deployment);
            let shared = others.any(|other| other.template.path() == template);
            tokio::spawn(async move {
                deployment.retire(RETIRE_TIME).await;
                if !shared {
                    // The disk may take its time; nobody waits for it.
                    tokio::task::spawn_blocking(move || deployment.template.remove());
                }
            });
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
            let target = &deployment.target;
            for figures in deployment.figures() {
                let stats = figures
                    .vm
                    .and_then(|vm| stats.iter().find_map(|worker| worker.get(&vm)));
                vms.push(VmStatus {
                    tenant: target.tenant.clone(),
                    app: target.app.clone(),
                    deployment: target.deployment,
                    state: figures.state,
                    isolation: target.isolation,
                    requests: figures.requests,
                    traps: figures.traps,
                    restores: figures.restores,
                    resets: figures.resets,
                    exits: stats.map_or(0, |stats| stats.exits),
                    resident_bytes: stats.map_or(0, |stats| stats.resident),
                });
            }
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
