//! One VM of a deployment, from the first descriptor to its end.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use platform_model::Isolation;
use rustix::fs::{MemfdFlags, SealFlags};
use sandbox_abi::config::{self, Reuse};
use sandbox_channel::{Begin, Command, VmId};
use sandbox_ring::host::RingMemory;
use tokio::io::unix::AsyncFd;
use tokio::sync::{MutexGuard, SetOnce};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::Shared;
use super::deployment::Deployment;
use super::template::Unfinished;
use super::worker::{Vm, Worker};
use crate::failure::chain;
use crate::link::renewal::Renewal;
use crate::link::{self, Link, drain};
use crate::sync::{self, watch_fd};
use crate::{Target, WarmError, WarmReport};

/// Time that a VM has for getting ready.
const START_TIME: Duration = Duration::from_secs(30);
/// Time that the worker has for saying how long it took, once the guest is ready.
const SETUP_TIME: Duration = Duration::from_millis(100);
/// Time that a template has for being written, once the guest is ready.
const SAVE_TIME: Duration = Duration::from_secs(10);
/// A VM that was lost so soon without having answered may have begun with a bad template.
const SUSPICIOUS: Duration = Duration::from_secs(2);

/// How a VM ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It was lost after it was ready.
    Lost,
    /// It was told to leave, and had nothing more to do.
    Left,
    /// It wrote the template, which was all that it was there for.
    Seeded,
    /// The template was bad, and is gone.
    BadTemplate,
}

/// A VM whose start was given up is lost.
struct LoseOnDrop(Arc<Link>);

impl Drop for LoseOnDrop {
    fn drop(&mut self) {
        self.0.lose("it was stopped");
    }
}

/// Descriptors that daemon and worker share for one VM, and the link over them.
struct Made {
    link: Arc<Link>,
    guard: LoseOnDrop,
    /// Those that the worker gets.
    theirs: Vec<OwnedFd>,
}

fn unavailable(what: &'static str) -> impl Fn(std::io::Error) -> WarmError {
    move |error| WarmError::Unavailable(format!("{what}: {error}"))
}

fn event() -> Result<OwnedFd, WarmError> {
    sync::event().map_err(unavailable("no eventfd"))
}

fn copy(fd: impl AsFd) -> Result<OwnedFd, WarmError> {
    fd.as_fd()
        .try_clone_to_owned()
        .map_err(unavailable("no descriptor"))
}

fn listen(fd: OwnedFd) -> Result<AsyncFd<OwnedFd>, WarmError> {
    watch_fd(fd).map_err(unavailable("cannot listen to an eventfd"))
}

/// Runs a VM of a deployment until it is lost or told to leave. An error: it never was ready.
pub(crate) async fn run(
    deployment: Arc<Deployment>,
    worker: Arc<Worker>,
    shared: Arc<Shared>,
    leave: CancellationToken,
) -> Result<End, WarmError> {
    let id = shared.next_vm();
    let end = tokio::select! {
        biased;
        // First: where a node stops, what comes next is the end of the worker, and no VM is lost by that.
        () = deployment.stop.cancelled() => Ok(End::Left),
        end = live(&deployment, &worker, &shared, id, leave) => end,
    };
    worker.stop(id).await;
    end
}

async fn live(
    deployment: &Arc<Deployment>,
    worker: &Worker,
    shared: &Arc<Shared>,
    id: VmId,
    leave: CancellationToken,
) -> Result<End, WarmError> {
    let began = Instant::now();
    let ready = match template_or_seed(deployment).await {
        Ok(template) => begin(deployment, worker, shared, id, template, began)
            .await?
            .ok_or(End::BadTemplate),
        Err(seed) => {
            let booted = boot(deployment, worker, shared, id, began).await?;
            drop(seed);
            booted.ok_or(End::Seeded)
        }
    };
    Ok(match ready {
        Ok(vm) => serve(deployment, vm, leave).await,
        Err(end) => end,
    })
}

/// The template; or, as an error, the right to write it where there is none, for which other VMs wait.
async fn template_or_seed(deployment: &Deployment) -> Result<File, MutexGuard<'_, ()>> {
    if let Some(template) = deployment.template.open() {
        return Ok(template);
    }
    let seed = deployment.template.seed.lock().await;
    deployment.template.open().ok_or(seed)
}

/// A VM that is ready.
struct Ready {
    id: VmId,
    guard: LoseOnDrop,
    report: WarmReport,
    /// It began with a template.
    restored: bool,
}

/// Boots a VM, and has it write the template if there is none. `None`: the VM is not one that may serve, as it cannot be
/// put back; the next one can.
async fn boot(
    deployment: &Arc<Deployment>,
    worker: &Worker,
    shared: &Arc<Shared>,
    id: VmId,
    began: Instant,
) -> Result<Option<Ready>, WarmError> {
    let is_put_back = resets(&deployment.target).is_some();
    let unfinished = match deployment.template.create(id) {
        Ok(unfinished) => unfinished,
        Err(error) => {
            let target = &deployment.target;
            tracing::warn!(tenant = %target.tenant, app = %target.app, %error, "no template can be written");
            None
        }
    };
    let file = unfinished.as_ref().and_then(Unfinished::file);
    let how = match file {
        Some(_) => Begin::BootAndSave,
        None => Begin::Boot,
    };
    let made = make(deployment, shared, None, false)?;
    let (vm, guard) = send(deployment, worker, id, made, how, file, false).await?;
    tokio::select! {
        biased;
        () = guard.0.ready.cancelled() => {}
        () = guard.0.lost.cancelled() => return Err(not_started(&vm)),
        () = tokio::time::sleep(START_TIME) => return Err(WarmError::Timeout(START_TIME)),
    }
    let report = report(&vm, began).await;
    if let Some(unfinished) = unfinished {
        // The guest said that it is ready after the worker had written the file; only the message may be later.
        let saved = tokio::time::timeout(SAVE_TIME, vm.saved.wait()).await;
        let kept = match saved {
            Ok(Ok(_)) => unfinished.keep().await.map_err(|error| error.to_string()),
            Ok(Err(reason)) => Err(reason.clone()),
            Err(_) => Err("it took too long".to_owned()),
        };
        if let Err(reason) = kept {
            let target = &deployment.target;
            tracing::warn!(tenant = %target.tenant, app = %target.app, deployment = %target.deployment, reason, "the template was not written");
            if is_put_back {
                let text = format!("the template, without which no VM can be put back: {reason}");
                return Err(WarmError::Unavailable(text));
            }
        }
    } else if is_put_back {
        let text = "no template can be written, and without one no VM can be put back".to_owned();
        return Err(WarmError::Unavailable(text));
    }
    if is_put_back {
        return Ok(None);
    }
    Ok(Some(Ready {
        id,
        guard,
        report,
        restored: false,
    }))
}

/// Begins a VM with the template. `None`: the template is bad, and gone.
async fn begin(
    deployment: &Arc<Deployment>,
    worker: &Worker,
    shared: &Arc<Shared>,
    id: VmId,
    template: File,
    began: Instant,
) -> Result<Option<Ready>, WarmError> {
    let reset = resets(&deployment.target);
    let made = make(deployment, shared, reset, true)?;
    let (vm, guard) = send(
        deployment,
        worker,
        id,
        made,
        Begin::Template,
        Some(&template),
        reset.is_some(),
    )
    .await?;
    tokio::select! {
        biased;
        // The guest is not asked: it sleeps until there is a request.
        _ = vm.setup.wait() => {}
        () = guard.0.lost.cancelled() => {
            if vm.bad_template.get().is_some() {
                deployment.template.remove();
                return Ok(None);
            }
            return Err(not_started(&vm));
        }
        () = tokio::time::sleep(START_TIME) => return Err(WarmError::Timeout(START_TIME)),
    }
    let report = report(&vm, began).await;
    Ok(Some(Ready {
        id,
        guard,
        report,
        restored: true,
    }))
}

async fn report(vm: &Vm, began: Instant) -> WarmReport {
    let ready = began.elapsed();
    // The worker's word comes another way than the guest's, and may be the later one.
    let setup = tokio::time::timeout(SETUP_TIME, vm.setup.wait()).await;
    WarmReport {
        setup: setup.map_or(Duration::ZERO, |setup| *setup),
        ready,
    }
}

fn not_started(vm: &Vm) -> WarmError {
    let reason = vm.link.reason().unwrap_or("the VM is lost").to_owned();
    if vm.not_made.get().is_some() {
        WarmError::Unavailable(reason)
    } else {
        WarmError::Refused(reason)
    }
}

/// Lets requests come to a VM that is ready, until it is lost or told to leave.
async fn serve(deployment: &Arc<Deployment>, vm: Ready, leave: CancellationToken) -> End {
    let link = Arc::clone(&vm.guard.0);
    let since = Instant::now();
    deployment.enter(vm.id, &link, vm.report);
    let _exit = ExitOnDrop(deployment, vm.id, &link);
    tokio::select! {
        biased;
        () = link.lost.cancelled() => {
            let target = &deployment.target;
            let reason = link.reason().unwrap_or("no reason known");
            tracing::warn!(tenant = %target.tenant, app = %target.app, deployment = %target.deployment, reason, "VM is lost");
            link.note(&format!("the sandbox was lost and is made anew: {reason}"));
            deployment.counters.vm_lost();
            if vm.restored && since.elapsed() < SUSPICIOUS && link.requests.load(Ordering::Relaxed) == 0 {
                deployment.template.remove();
            }
            End::Lost
        }
        () = leave.cancelled() => {
            link.leave();
            tokio::select! {
                () = link.idle() => {}
                () = link.lost.cancelled() => {}
            }
            End::Left
        }
    }
}

/// A VM does not serve any more, however that came about.
struct ExitOnDrop<'d>(&'d Deployment, VmId, &'d Link);

impl Drop for ExitOnDrop<'_> {
    fn drop(&mut self) {
        self.0.exit(self.1, self.2);
    }
}

/// Makes what daemon and worker share, and the link; starts to read what the guest writes.
fn make(
    deployment: &Arc<Deployment>,
    shared: &Arc<Shared>,
    reset: Option<u32>,
    asleep: bool,
) -> Result<Made, WarmError> {
    let target = &deployment.target;
    let memory = RingMemory::create().map_err(|error| WarmError::Unavailable(error.to_string()))?;
    let (wake, bell) = (event()?, event()?);
    let artifact = File::open(&target.artifact).map_err(unavailable("cannot open the artifact"))?;
    let mut theirs = vec![
        artifact.into(),
        copy(memory.as_fd())?,
        copy(&wake)?,
        copy(&bell)?,
        configuration(target).map_err(unavailable("cannot write the configuration"))?,
    ];
    let (mut renewal, mut done) = (None, None);
    if let Some(after) = reset {
        let (ours, request) = Renewal::new(after).map_err(unavailable("no eventfd"))?;
        let finished = event()?;
        theirs.extend([request, copy(&finished)?]);
        (renewal, done) = (Some(ours), Some(listen(finished)?));
    }
    let doorbell = listen(bell)?;
    let link = Link::new(
        &memory,
        link::Parts {
            target: Arc::clone(target),
            gate: Arc::clone(&deployment.gate),
            freed: Arc::clone(&deployment.freed),
            wake,
            logs: Arc::clone(&shared.logs),
            counters: Arc::clone(&deployment.counters),
            usage: Arc::clone(&deployment.usage),
            renewal,
            asleep,
        },
    );
    tokio::spawn(drain::run(
        Arc::clone(&link),
        memory,
        doorbell,
        done,
        Arc::clone(&shared.egress),
    ));
    Ok(Made {
        guard: LoseOnDrop(Arc::clone(&link)),
        link,
        theirs,
    })
}

/// Tells the worker to make the VM.
async fn send(
    deployment: &Deployment,
    worker: &Worker,
    id: VmId,
    made: Made,
    begin: Begin,
    template: Option<&File>,
    reset: bool,
) -> Result<(Arc<Vm>, LoseOnDrop), WarmError> {
    let vm = Arc::new(Vm {
        link: made.link,
        setup: SetOnce::new(),
        saved: SetOnce::new(),
        not_made: OnceLock::new(),
        bad_template: OnceLock::new(),
    });
    let target = &deployment.target;
    let command = Command::CreateVm {
        vm: id,
        memory: target.limits.vm_memory_bytes,
        begin,
        reset,
    };
    let mut fds: Vec<BorrowedFd<'_>> = made.theirs.iter().map(AsFd::as_fd).collect();
    if let Some(template) = template {
        fds.insert(5, template.as_fd());
    }
    worker
        .create(id, Arc::clone(&vm), &command, &fds)
        .await
        .map_err(|error| WarmError::Unavailable(chain(&error)))?;
    Ok((vm, made.guard))
}

/// More bytes than a configuration has without its environment.
const ROOM: usize = 256;

/// After how many requests VMs of a target are put back, if they are.
pub(crate) fn resets(target: &Target) -> Option<u32> {
    match target.isolation {
        Isolation::Vm { requests } => Some(requests),
        Isolation::Instance | Isolation::Reuse { .. } => None,
    }
}

/// What the guest is told about its deployment, secrets among it: a file in memory that nobody can change. It goes to the
/// worker as it is, which never reads it.
fn configuration(target: &Target) -> std::io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut file = File::from(rustix::fs::memfd_create("config", flags)?);
    file.write_all(&encode(target))?;
    let seals = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&file, seals)?;
    Ok(file.into())
}

/// The configuration as `sandbox-abi` encodes it.
fn encode(target: &Target) -> Zeroizing<Vec<u8>> {
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
    let reuse = match target.isolation {
        Isolation::Instance => Reuse::Never,
        Isolation::Vm { requests } => Reuse::Vm {
            requests: requests.into(),
        },
        Isolation::Reuse { requests, seconds } => Reuse::UpTo {
            requests: requests.into(),
            ns: nanoseconds(u64::from(seconds) * 1000),
        },
    };
    // Enough at once: bytes that grew would leave copies of themselves behind.
    let variables = target.env.iter();
    let room = variables.map(|(name, value)| name.len() + value.expose().len() + 8);
    let mut bytes = Zeroizing::new(Vec::with_capacity(ROOM + room.sum::<usize>()));
    let env = target
        .env
        .iter()
        .map(|(name, value)| (name, value.expose()));
    config::Config::write(&mut *bytes, &limits, reuse, env);
    bytes
}
