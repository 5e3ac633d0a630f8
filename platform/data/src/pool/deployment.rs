//! One deployment that is served: its VMs, started when they are wanted and replaced when they are lost.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use platform_model::VmState;
use sandbox_channel::VmId;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::member::{self, End};
use super::scale::{Decision, Scaler, Seen};
use super::template::TemplateFile;
use super::worker::Worker;
use crate::link::Link;
use crate::metrics::Counters;
use crate::sync::lock;
use crate::usage::Usage;
use crate::{Target, WarmError, WarmReport};

/// A VM that lived for so long did not die of its start.
const HEALTHY: Duration = Duration::from_secs(10);
/// Longest pause before another start.
const MAX_PAUSE: Duration = Duration::from_secs(5);
/// Starts in a row that may fail before only a request tries again.
const MAX_FAILURES: u32 = 5;

/// How a deployment is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Phase {
    /// No VM, and none wanted.
    Cold,
    /// The first VM is being made.
    Starting,
    /// It serves.
    Ready(WarmReport),
    /// The last start failed.
    Failed(WarmError),
    /// It will not serve again.
    Stopped,
}

/// A VM that serves.
pub(crate) struct Member {
    pub(crate) vm: VmId,
    pub(crate) link: Arc<Link>,
}

/// A deployment.
pub(crate) struct Deployment {
    pub(crate) target: Arc<Target>,
    pub(crate) usage: Arc<Usage>,
    /// As many permits as requests may run.
    pub(crate) gate: Arc<Semaphore>,
    /// Requests that wait for a permit.
    pub(crate) waiting: AtomicU32,
    /// Requests that have a permit and wait for a place in a VM.
    pub(crate) placeless: AtomicU32,
    /// Told when a place gets free that somebody may wait for.
    pub(crate) freed: Arc<Notify>,
    /// The VMs that serve.
    pub(crate) members: ArcSwap<Vec<Member>>,
    pub(crate) phase: watch::Sender<Phase>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) template: TemplateFile,
    /// How many VMs there are to be.
    desired: AtomicU32,
    /// Told when `desired` has changed, or a request waits for a VM.
    wanted: Notify,
    /// Requests that hold on to it.
    users: AtomicU32,
    /// Those who wait for a VM, requests or not.
    awaiting: AtomicU32,
    unheld: Notify,
    /// No new requests: it left the route table.
    pub(crate) retired: CancellationToken,
    /// It ends now.
    pub(crate) stop: CancellationToken,
    past: Past,
    scaler: Mutex<Scaler>,
}

/// Figures of VMs that are gone.
#[derive(Debug, Default)]
struct Past {
    requests: AtomicU64,
    traps: AtomicU64,
    restores: AtomicU64,
    resets: AtomicU64,
}

/// Figures of one VM, or of a deployment that has none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figures {
    pub(crate) vm: Option<VmId>,
    pub(crate) state: VmState,
    pub(crate) requests: u64,
    pub(crate) traps: u64,
    pub(crate) restores: u64,
    pub(crate) resets: u64,
}

/// A request's hold on a deployment: it is not stopped while there is one.
pub(crate) struct Hold(pub(crate) Arc<Deployment>);

impl Drop for Hold {
    fn drop(&mut self) {
        if self.0.users.fetch_sub(1, Ordering::AcqRel) == 1 && self.0.retired.is_cancelled() {
            self.0.unheld.notify_waiters();
        }
    }
}

/// Somebody waits for a VM: none is given up meanwhile.
struct Awaiting<'d>(&'d AtomicU32);

impl<'d> Awaiting<'d> {
    fn new(count: &'d AtomicU32) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(count)
    }
}

impl Drop for Awaiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Deployment {
    /// A deployment without a VM; its supervisor is started with it.
    pub(crate) fn new(target: Arc<Target>, worker: Arc<Worker>, shared: Arc<Shared>) -> Arc<Self> {
        let template = TemplateFile::new(
            shared.templates.as_deref(),
            target.tenant.as_str(),
            &target.artifact,
        );
        let deployment = Arc::new(Deployment {
            gate: Arc::new(Semaphore::new(capacity(&target, shared.processors))),
            waiting: AtomicU32::new(0),
            placeless: AtomicU32::new(0),
            freed: Arc::default(),
            members: ArcSwap::default(),
            phase: watch::Sender::new(Phase::Cold),
            counters: shared.registry.enter(&target),
            template,
            desired: AtomicU32::new(target.scale.min),
            wanted: Notify::new(),
            users: AtomicU32::new(0),
            awaiting: AtomicU32::new(0),
            unheld: Notify::new(),
            retired: CancellationToken::new(),
            stop: CancellationToken::new(),
            past: Past::default(),
            scaler: Mutex::default(),
            usage: shared.accounts.of(&target),
            target,
        });
        tokio::spawn(Arc::clone(&deployment).supervise(worker, shared));
        deployment
    }

    /// Holds on to it for a request. `None`: it is on its way out, look again.
    pub(crate) fn hold(self: &Arc<Self>) -> Option<Hold> {
        self.users.fetch_add(1, Ordering::AcqRel);
        let hold = Hold(Arc::clone(self));
        (!self.retired.is_cancelled()).then_some(hold)
    }

    /// Asks for a VM, if there is none.
    pub(crate) fn want(&self) {
        self.desired.fetch_max(1, Ordering::AcqRel);
        self.wanted.notify_one();
    }

    /// The VM that is to have the next request: the one with the fewest, and with a free place if there is one.
    pub(crate) fn pick(&self) -> Option<Arc<Link>> {
        let members = self.members.load();
        if let [only] = members.as_slice() {
            return only.link.serves().then(|| Arc::clone(&only.link));
        }
        let load = |member: &&Member| {
            let link = &member.link;
            let full = link.renewal.is_some() && link.free_places() == 0;
            (full, link.active.load(Ordering::Relaxed))
        };
        let serving = members.iter().filter(|member| member.link.serves());
        serving
            .min_by_key(load)
            .map(|member| Arc::clone(&member.link))
    }

    /// Waits until it serves, or says why it does not.
    pub(crate) async fn ready(&self) -> Result<WarmReport, WarmError> {
        let mut phase = self.phase.subscribe();
        let _awaiting = Awaiting::new(&self.awaiting);
        self.want();
        // What failed before this call does not count: the want starts another try.
        let mut first = true;
        loop {
            let now = phase.borrow_and_update().clone();
            match now {
                Phase::Ready(report) => return Ok(report),
                Phase::Failed(error) if !first => return Err(error),
                Phase::Stopped => return Err(WarmError::Stopped),
                Phase::Cold | Phase::Starting | Phase::Failed(_) => {}
            }
            first = false;
            if phase.changed().await.is_err() {
                return Err(WarmError::Stopped);
            }
        }
    }

    /// Waits until nobody holds on to it and its guests have nothing to do, then stops it.
    pub(crate) async fn retire(&self, deadline: Duration) {
        self.retired.cancel();
        let drained = async {
            loop {
                let idle = self.unheld.notified();
                if self.users.load(Ordering::Acquire) == 0 {
                    break;
                }
                idle.await;
            }
            loop {
                // The guests may work on after their last answers.
                let links: Vec<_> = self
                    .members
                    .load()
                    .iter()
                    .map(|member| Arc::clone(&member.link))
                    .collect();
                let Some(busy) = links
                    .iter()
                    .find(|link| link.active.load(Ordering::Acquire) > 0)
                else {
                    break;
                };
                tokio::select! {
                    () = busy.idle() => {}
                    () = busy.lost.cancelled() => tokio::task::yield_now().await,
                }
            }
        };
        let _ = tokio::time::timeout(deadline, drained).await;
        self.stop.cancel();
    }

    /// Stops it at once.
    pub(crate) fn stop(&self) {
        self.retired.cancel();
        self.stop.cancel();
    }

    /// A VM serves from now on.
    pub(crate) fn enter(&self, vm: VmId, link: &Arc<Link>, report: WarmReport) {
        self.counters.vm_started();
        self.members.rcu(|members| {
            let link = Arc::clone(link);
            let others = members.iter().map(Member::copy);
            others.chain([Member { vm, link }]).collect::<Vec<_>>()
        });
        self.phase.send_replace(Phase::Ready(report));
        // Whoever waits for a place may have it here.
        for _ in 0..link.free_places().min(64) {
            self.freed.notify_one();
        }
    }

    /// A VM does not serve any more.
    pub(crate) fn exit(&self, vm: VmId, link: &Link) {
        self.members.rcu(|members| {
            let others = members.iter().filter(|member| member.vm != vm);
            others.map(Member::copy).collect::<Vec<_>>()
        });
        let past = &self.past;
        past.requests
            .fetch_add(link.requests.load(Ordering::Relaxed), Ordering::Relaxed);
        past.traps
            .fetch_add(link.traps.load(Ordering::Relaxed), Ordering::Relaxed);
        let rounds = link.renewal.as_ref().map_or(0, |reset| reset.rounds());
        past.resets.fetch_add(rounds, Ordering::Relaxed);
    }

    /// Looks after deadlines, and after how many VMs there are. `false`: there is nothing to look after.
    pub(crate) fn sweep(&self, passed: Duration, processors: u32) -> bool {
        let members = self.members.load();
        for member in members.iter() {
            member.link.sweep();
        }
        let desired = self.desired.load(Ordering::Acquire);
        let (ended, cpu) = self.counters.work();
        let seen = Seen {
            vms: desired.max(u32::try_from(members.len()).unwrap_or(u32::MAX)),
            active: members
                .iter()
                .map(|member| member.link.active.load(Ordering::Relaxed))
                .sum(),
            placeless: self.placeless.load(Ordering::Relaxed),
            held: self.users.load(Ordering::Acquire) + self.awaiting.load(Ordering::Acquire),
            ended,
            cpu,
        };
        if desired == 0 && members.is_empty() {
            return false;
        }
        let decision = lock(&self.scaler).look(seen, passed, &self.target.scale, processors);
        let change = match decision {
            Decision::Stay => return true,
            // Beyond the processors there is nothing to win for those that compute.
            Decision::More => desired.saturating_add(1),
            Decision::Fewer => desired.saturating_sub(1).max(self.target.scale.min),
            Decision::Idle => self.target.scale.min,
        };
        // A request that came meanwhile has the last word.
        let _ = self
            .desired
            .compare_exchange(desired, change, Ordering::AcqRel, Ordering::Acquire);
        self.wanted.notify_one();
        true
    }

    /// For how long it has had no request, if it has VMs beyond those that it always has.
    pub(crate) fn idle(&self) -> Option<Duration> {
        let spare = self.members.load().len() > self.target.scale.min as usize;
        let idle = lock(&self.scaler).idle();
        (spare && !idle.is_zero()).then_some(idle)
    }

    /// Gives up its VMs now if it has no request, to make room for others. Tells whether it did.
    pub(crate) fn evict(&self) -> bool {
        let members = self.members.load();
        let busy = |member: &Member| member.link.active.load(Ordering::Relaxed) > 0;
        if members.iter().any(busy) || self.users.load(Ordering::Relaxed) > 0 {
            return false;
        }
        self.desired.store(self.target.scale.min, Ordering::Release);
        self.wanted.notify_one();
        true
    }

    async fn supervise(self: Arc<Self>, worker: Arc<Worker>, shared: Arc<Shared>) {
        let mut vms = Vms::default();
        // Ends in a row that came soon after the start, or before it was ready.
        let mut failures = 0;
        let mut rest: Option<tokio::time::Instant> = None;
        while !self.stop.is_cancelled() {
            let desired = self.desired.load(Ordering::Acquire) as usize;
            if rest.is_none() {
                while vms.staying() < desired {
                    if self.members.load().is_empty() {
                        self.phase.send_replace(Phase::Starting);
                    }
                    shared.awake(&self);
                    vms.start(&self, &worker, &shared);
                }
            }
            while vms.staying() > desired {
                vms.let_go();
            }
            tokio::select! {
                () = self.wanted.notified() => {}
                () = self.stop.cancelled() => break,
                () = rested(rest) => rest = None,
                Some(ended) = vms.running.join_next() => {
                    let Ok((id, began, ended)) = ended else { continue };
                    vms.leaves.retain(|(other, _)| *other != id);
                    failures = self.after(ended, began, failures);
                    rest = (failures > 1).then(|| tokio::time::Instant::now() + pause(failures - 1));
                }
            }
        }
        // Each sees by itself that it has to stop.
        while vms.running.join_next().await.is_some() {}
        self.phase.send_replace(Phase::Stopped);
        shared.registry.leave(&self.target, &self.counters);
    }

    /// A VM has ended; says how many have ended badly in a row.
    fn after(&self, ended: Result<End, WarmError>, began: Instant, failures: u32) -> u32 {
        let target = &self.target;
        let alone = self.members.load().is_empty();
        match ended {
            Ok(End::Left | End::Seeded) => {
                if alone {
                    let cold = self.desired.load(Ordering::Acquire) == 0;
                    self.phase
                        .send_replace(if cold { Phase::Cold } else { Phase::Starting });
                }
                return 0;
            }
            Ok(End::BadTemplate) => {
                tracing::warn!(tenant = %target.tenant, app = %target.app, deployment = %target.deployment, "the template was of no use");
                return failures + 1;
            }
            Ok(End::Lost) | Err(_) => {}
        }
        self.past.restores.fetch_add(1, Ordering::Relaxed);
        let healthy = ended.is_ok() && began.elapsed() > HEALTHY;
        let failures = if healthy { 0 } else { failures + 1 };
        let again = ended.is_ok() && failures <= MAX_FAILURES;
        if !again {
            // The next request tries again.
            self.desired.store(0, Ordering::Release);
        }
        let phase = match ended {
            Ok(_) if again => Phase::Starting,
            Ok(_) => Phase::Failed(WarmError::Unavailable(
                "its VM is lost again and again".to_owned(),
            )),
            Err(error) => {
                tracing::warn!(tenant = %target.tenant, app = %target.app, deployment = %target.deployment, %error, "VM does not start");
                Phase::Failed(error)
            }
        };
        // Requests wait while it is starting, and are told why where it is not.
        if alone {
            self.phase.send_replace(phase);
        }
        failures
    }

    /// State and figures of each VM, or of the deployment where it has none; those of VMs that are gone are the first
    /// one's. Exits and memory only the workers know.
    pub(crate) fn figures(&self) -> Vec<Figures> {
        let members = self.members.load();
        let past = &self.past;
        let mut all: Vec<Figures> = members
            .iter()
            .map(|member| Figures {
                vm: Some(member.vm),
                state: VmState::Ready,
                requests: member.link.requests.load(Ordering::Relaxed),
                traps: member.link.traps.load(Ordering::Relaxed),
                restores: 0,
                resets: member
                    .link
                    .renewal
                    .as_ref()
                    .map_or(0, |reset| reset.rounds()),
            })
            .collect();
        if all.is_empty() {
            let state = match &*self.phase.borrow() {
                Phase::Cold | Phase::Stopped => VmState::Stopped,
                Phase::Starting | Phase::Ready(_) => VmState::Starting,
                Phase::Failed(_) => VmState::Lost,
            };
            all.push(Figures {
                vm: None,
                state,
                requests: 0,
                traps: 0,
                restores: 0,
                resets: 0,
            });
        }
        if let Some(first) = all.first_mut() {
            first.requests += past.requests.load(Ordering::Relaxed);
            first.traps += past.traps.load(Ordering::Relaxed);
            first.restores += past.restores.load(Ordering::Relaxed);
            first.resets += past.resets.load(Ordering::Relaxed);
        }
        all
    }
}

impl Member {
    fn copy(&self) -> Self {
        Member {
            vm: self.vm,
            link: Arc::clone(&self.link),
        }
    }
}

/// What the task of a VM says at its end: its number among them, when it began, how it ended.
type Ended = (u64, Instant, Result<End, WarmError>);

/// The tasks of a deployment's VMs.
#[derive(Default)]
struct Vms {
    running: JoinSet<Ended>,
    /// How each that is to stay is told to leave, the oldest first.
    leaves: Vec<(u64, CancellationToken)>,
    next: u64,
}

impl Vms {
    fn start(&mut self, deployment: &Arc<Deployment>, worker: &Arc<Worker>, shared: &Arc<Shared>) {
        let id = self.next;
        self.next += 1;
        let leave = CancellationToken::new();
        self.leaves.push((id, leave.clone()));
        let (deployment, worker, shared) = (
            Arc::clone(deployment),
            Arc::clone(worker),
            Arc::clone(shared),
        );
        self.running.spawn(async move {
            let began = Instant::now();
            let ended = member::run(deployment, worker, shared, leave).await;
            (id, began, ended)
        });
    }

    /// How many were not told to leave.
    fn staying(&self) -> usize {
        self.leaves.len()
    }

    /// Tells the youngest to leave.
    fn let_go(&mut self) {
        if let Some((_, leave)) = self.leaves.pop() {
            leave.cancel();
        }
    }
}

/// Requests that may run at once: what the deployment's limit allows, and what its VMs can take.
fn capacity(target: &Target, processors: u32) -> usize {
    let limit = target.limits.concurrency;
    let most = match target.scale.max {
        0 => processors,
        max => max,
    };
    let places = match member::resets(target) {
        Some(requests) => limit.min(requests.saturating_mul(most)),
        None => limit,
    };
    places as usize
}

async fn rested(until: Option<tokio::time::Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until).await,
        None => std::future::pending().await,
    }
}

fn pause(failures: u32) -> Duration {
    Duration::from_millis(20)
        .saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1)))
        .min(MAX_PAUSE)
}
