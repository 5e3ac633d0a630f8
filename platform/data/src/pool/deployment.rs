//! One deployment that is served: its VM, started when it is wanted and replaced when it is lost.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use platform_model::VmState;
use rustix::event::{EventfdFlags, eventfd};
use sandbox_abi::config;
use sandbox_channel::{Command, VmId};
use sandbox_ring::host::RingMemory;

use tokio::sync::{Notify, Semaphore, SetOnce, watch};
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::worker::{Vm, Worker};
use crate::link::{Link, drain};
use crate::sync::{lock, watch_fd};
use crate::usage::Usage;
use crate::{Target, WarmError, WarmReport};

/// Time that a VM has for getting ready.
const START_TIME: Duration = Duration::from_secs(30);
/// Time that the worker has for saying how long it took, once the guest is ready.
const SETUP_TIME: Duration = Duration::from_millis(100);
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
    /// A VM is being made.
    Starting,
    /// It serves.
    Ready(WarmReport),
    /// The last start failed.
    Failed(WarmError),
    /// It will not serve again.
    Stopped,
}

/// A deployment.
pub(crate) struct Deployment {
    pub(crate) target: Arc<Target>,
    pub(crate) usage: Arc<Usage>,
    /// As many permits as requests may run.
    pub(crate) gate: Arc<Semaphore>,
    /// Requests that wait for a permit.
    pub(crate) waiting: AtomicU32,
    /// The link to the VM that serves, if one does.
    pub(crate) link: ArcSwapOption<Link>,
    pub(crate) phase: watch::Sender<Phase>,
    wanted: Notify,
    /// Requests that hold on to it.
    users: AtomicU32,
    idle: Notify,
    /// No new requests: it left the route table.
    pub(crate) retired: CancellationToken,
    stop: CancellationToken,
    vm: Mutex<Option<VmId>>,
    past: Past,
}

/// Figures of VMs that are gone.
#[derive(Debug, Default)]
struct Past {
    requests: AtomicU64,
    traps: AtomicU64,
    restores: AtomicU64,
}

/// A request's hold on a deployment: it is not stopped while there is one.
pub(crate) struct Hold(pub(crate) Arc<Deployment>);

impl Drop for Hold {
    fn drop(&mut self) {
        if self.0.users.fetch_sub(1, Ordering::AcqRel) == 1 && self.0.retired.is_cancelled() {
            self.0.idle.notify_waiters();
        }
    }
}

impl Deployment {
    /// A deployment without a VM; its supervisor is started with it.
    pub(crate) fn new(target: Arc<Target>, worker: Arc<Worker>, shared: Arc<Shared>) -> Arc<Self> {
        let deployment = Arc::new(Deployment {
            gate: Arc::new(Semaphore::new(target.limits.concurrency as usize)),
            waiting: AtomicU32::new(0),
            link: ArcSwapOption::empty(),
            phase: watch::Sender::new(Phase::Cold),
            wanted: Notify::new(),
            users: AtomicU32::new(0),
            idle: Notify::new(),
            retired: CancellationToken::new(),
            stop: CancellationToken::new(),
            vm: Mutex::default(),
            past: Past::default(),
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

    /// Asks for a VM.
    pub(crate) fn want(&self) {
        self.wanted.notify_one();
    }

    /// Waits until it serves, or says why it does not.
    pub(crate) async fn ready(&self) -> Result<WarmReport, WarmError> {
        let mut phase = self.phase.subscribe();
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

    /// Waits until nobody holds on to it and its guest has nothing to do, then stops it.
    pub(crate) async fn retire(&self, deadline: Duration) {
        self.retired.cancel();
        let drained = async {
            loop {
                let idle = self.idle.notified();
                if self.users.load(Ordering::Acquire) == 0 {
                    break;
                }
                idle.await;
            }
            let all = self.target.limits.concurrency;
            let _ = self.gate.acquire_many(all).await;
        };
        let _ = tokio::time::timeout(deadline, drained).await;
        self.stop.cancel();
    }

    /// Stops it at once.
    pub(crate) fn stop(&self) {
        self.retired.cancel();
        self.stop.cancel();
    }

    async fn supervise(self: Arc<Self>, worker: Arc<Worker>, shared: Arc<Shared>) {
        // Ends in a row that came soon after the start, or before it was ready.
        let mut failures = 0;
        let mut again = false;
        while !self.stop.is_cancelled() {
            if !again {
                tokio::select! {
                    () = self.wanted.notified() => {}
                    () = self.stop.cancelled() => break,
                }
            }
            self.phase.send_replace(Phase::Starting);
            let began = Instant::now();
            let ended = tokio::select! {
                ended = self.run_vm(&worker, &shared) => ended,
                () = self.stop.cancelled() => break,
            };
            failures = if ended.is_ok() && began.elapsed() > HEALTHY {
                0
            } else {
                failures + 1
            };
            again = ended.is_ok() && failures <= MAX_FAILURES;
            // Requests wait while it is starting, and are told why where it is not.
            self.phase.send_replace(match ended {
                Ok(()) if again => Phase::Starting,
                Ok(()) => Phase::Failed(WarmError::Unavailable("its VM is lost again and again".to_owned())),
                Err(error) => {
                    let target = &self.target;
                    tracing::warn!(tenant = %target.tenant, app = %target.app, deployment = %target.deployment, %error, "VM does not start");
                    Phase::Failed(error)
                }
            });
            self.take_down(&worker).await;
            self.past.restores.fetch_add(1, Ordering::Relaxed);
            if failures > 1 {
                self.rest(failures - 1).await;
            }
        }
        self.take_down(&worker).await;
        self.phase.send_replace(Phase::Stopped);
    }

    async fn rest(&self, failures: u32) {
        let pause = Duration::from_millis(20)
            .saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1)))
            .min(MAX_PAUSE);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = self.stop.cancelled() => {}
        }
    }

    /// Makes a VM and serves with it until it is lost. An error: it never was ready.
    async fn run_vm(&self, worker: &Worker, shared: &Arc<Shared>) -> Result<(), WarmError> {
        let unavailable = |what: &'static str| {
            move |error: std::io::Error| WarmError::Unavailable(format!("{what}: {error}"))
        };
        let began = Instant::now();
        let memory =
            RingMemory::create().map_err(|error| WarmError::Unavailable(error.to_string()))?;
        let event = || {
            eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(std::io::Error::from)
        };
        let wake = event().map_err(unavailable("no eventfd"))?;
        let bell = event().map_err(unavailable("no eventfd"))?;
        let artifact = std::fs::File::open(&self.target.artifact)
            .map_err(unavailable("cannot open the artifact"))?;
        let copy = |fd: &std::os::fd::OwnedFd| fd.try_clone().map_err(unavailable("no descriptor"));
        let doorbell =
            watch_fd(copy(&bell)?).map_err(unavailable("cannot listen to the doorbell"))?;
        let link = Link::new(
            Arc::clone(&self.target),
            Arc::clone(&self.usage),
            Arc::clone(&self.gate),
            &memory,
            copy(&wake)?,
            Arc::clone(&shared.logs),
        );
        shared.watch(&link);
        tokio::spawn(drain::run(
            Arc::clone(&link),
            Arc::clone(&memory),
            doorbell,
            Arc::clone(&shared.egress),
        ));

        let id = shared.next_vm();
        *lock(&self.vm) = Some(id);
        let vm = Arc::new(Vm {
            link: Arc::clone(&link),
            setup: SetOnce::new(),
            not_made: OnceLock::new(),
        });
        let command = Command::CreateVm {
            vm: id,
            memory: self.target.limits.vm_memory_bytes,
            config: encode(&self.target),
        };
        let fds = [artifact.as_fd(), memory.as_fd(), wake.as_fd(), bell.as_fd()];
        let guard = LoseOnDrop(Arc::clone(&link));
        worker
            .create(id, Arc::clone(&vm), &command, &fds)
            .await
            .map_err(|error| WarmError::Unavailable(error_chain(&error)))?;
        drop((artifact, wake, bell));

        tokio::select! {
            biased;
            () = link.ready.cancelled() => {}
            () = link.lost.cancelled() => {
                let reason = link.reason().unwrap_or("the VM is lost").to_owned();
                let not_made = vm.not_made.get().is_some();
                return Err(if not_made { WarmError::Unavailable(reason) } else { WarmError::Refused(reason) });
            }
            () = tokio::time::sleep(START_TIME) => return Err(WarmError::Timeout(START_TIME)),
        }
        let ready = began.elapsed();
        // The worker's word comes another way than the guest's, and may be the later one.
        let setup = tokio::time::timeout(SETUP_TIME, vm.setup.wait()).await;
        let report = WarmReport {
            setup: setup.map_or(Duration::ZERO, |setup| *setup),
            ready,
        };
        self.link.store(Some(Arc::clone(&link)));
        self.phase.send_replace(Phase::Ready(report));
        link.lost.cancelled().await;
        let reason = link.reason().unwrap_or("no reason known");
        tracing::warn!(tenant = %self.target.tenant, app = %self.target.app, deployment = %self.target.deployment, reason, "VM is lost");
        link.note(&format!("the sandbox was lost and is made anew: {reason}"));
        drop(guard);
        Ok(())
    }

    async fn take_down(&self, worker: &Worker) {
        if let Some(link) = self.link.swap(None) {
            self.past
                .requests
                .fetch_add(link.requests.load(Ordering::Relaxed), Ordering::Relaxed);
            self.past
                .traps
                .fetch_add(link.traps.load(Ordering::Relaxed), Ordering::Relaxed);
            link.lose("it was stopped");
        }
        let vm = lock(&self.vm).take();
        if let Some(vm) = vm {
            worker.stop(vm).await;
        }
    }

    /// The number of its VM, if it has one.
    pub(crate) fn vm(&self) -> Option<VmId> {
        *lock(&self.vm)
    }

    /// State and figures, without those that only the worker knows: requests, traps, restores.
    pub(crate) fn figures(&self) -> (VmState, u64, u64, u64) {
        let state = match &*self.phase.borrow() {
            Phase::Cold | Phase::Stopped => VmState::Stopped,
            Phase::Starting => VmState::Starting,
            Phase::Ready(_) => VmState::Ready,
            Phase::Failed(_) => VmState::Lost,
        };
        let link = self.link.load();
        let live = |count: fn(&Link) -> &AtomicU64| {
            link.as_ref()
                .map_or(0, |link| count(link).load(Ordering::Relaxed))
        };
        (
            state,
            self.past.requests.load(Ordering::Relaxed) + live(|link| &link.requests),
            self.past.traps.load(Ordering::Relaxed) + live(|link| &link.traps),
            self.past.restores.load(Ordering::Relaxed),
        )
    }
}

/// A VM whose start was given up is lost.
struct LoseOnDrop(Arc<Link>);

impl Drop for LoseOnDrop {
    fn drop(&mut self) {
        self.0.lose("it was stopped");
    }
}

/// What the guest is told about its deployment.
fn encode(target: &Target) -> Vec<u8> {
    let limits = &target.limits;
    let nanoseconds = |ms: u64| ms.saturating_mul(1_000_000);
    let limits = config::Limits {
        memory: limits.memory_bytes,
        cpu_ns: nanoseconds(limits.cpu_ms),
        post_return_ns: nanoseconds(limits.post_return_ms),
        concurrency: limits.concurrency,
        head_bytes: limits.head_bytes,
        scratch_bytes: limits.scratch_bytes,
    };
    let mut bytes = Vec::new();
    let env = target
        .env
        .iter()
        .map(|(name, value)| (name, value.expose()));
    config::Config::write(&mut bytes, &limits, env);
    bytes
}

/// An error with its causes, on one line.
fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
