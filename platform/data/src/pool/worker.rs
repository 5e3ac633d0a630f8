//! The worker process of one tenant: started when it is needed, restarted when it dies, told what VMs to make.

use std::collections::HashMap;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use platform_model::{TenantName, WorkerStatus};
use rustix::io::Errno;
use sandbox_channel::{Command, Event, ReceiveError, SendError, Socket, VmId, VmStats};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::{Notify, SetOnce};
use tokio_util::sync::CancellationToken;

use crate::link::Link;
use crate::sync::{lock, watch_fd};

/// A worker that lived for so long did not die of its start.
const HEALTHY: Duration = Duration::from_secs(10);
/// Longest pause before a restart.
const MAX_PAUSE: Duration = Duration::from_secs(5);
/// Time that a worker has for answering with its figures.
const STATS_TIME: Duration = Duration::from_millis(500);

/// A worker could not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WorkerError {
    /// The process did not start.
    #[error("the worker process does not start")]
    Spawn(#[source] std::io::Error),
    /// No socket for it.
    #[error("no socket for the worker")]
    Socket(#[source] Errno),
    /// It is gone, or does not listen.
    #[error("the worker does not take commands")]
    Send(#[source] SendError),
}

/// A VM as its worker's messages are sorted to it.
#[derive(Debug)]
pub(crate) struct Vm {
    pub(crate) link: Arc<Link>,
    /// Time from the command until the guest was entered, or may be.
    pub(crate) setup: SetOnce<Duration>,
    /// Bytes of the template that it wrote, or why it did not.
    pub(crate) saved: SetOnce<Result<u64, String>>,
    /// Set before the link is lost: the template is of no use.
    pub(crate) bad_template: OnceLock<()>,
    /// Set before the link is lost: the machine could not make the VM.
    pub(crate) not_made: OnceLock<()>,
}

/// A running process.
struct Process {
    socket: Socket,
    ready: AsyncFd<OwnedFd>,
    vms: Mutex<HashMap<VmId, Arc<Vm>>>,
    stats: Mutex<Vec<VmStats>>,
    stats_came: Notify,
    pid: Option<u32>,
    gone: CancellationToken,
    started: Instant,
}

/// The worker of one tenant.
pub(crate) struct Worker {
    tenant: TenantName,
    executable: PathBuf,
    current: tokio::sync::Mutex<Option<Arc<Process>>>,
    /// The same process, for those who must not wait.
    seen: Mutex<Option<Arc<Process>>>,
    starts: AtomicU64,
    /// Starts in a row that did not last.
    failures: AtomicU32,
}

impl Worker {
    /// A worker that is not yet started.
    pub(crate) fn new(tenant: TenantName, executable: PathBuf) -> Self {
        Worker {
            tenant,
            executable,
            current: tokio::sync::Mutex::default(),
            seen: Mutex::default(),
            starts: AtomicU64::new(0),
            failures: AtomicU32::new(0),
        }
    }

    /// Makes a VM; starts the process if there is none.
    pub(crate) async fn create(
        &self,
        vm: VmId,
        entry: Arc<Vm>,
        command: &Command,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(), WorkerError> {
        let process = self.process().await?;
        lock(&process.vms).insert(vm, Arc::clone(&entry));
        if process.gone.is_cancelled() {
            entry.link.lose("the worker process ended");
            return Ok(());
        }
        let sent = process.send(command, fds).await;
        if sent.is_err() {
            lock(&process.vms).remove(&vm);
        }
        sent
    }

    /// Ends a VM, if its process still is there.
    pub(crate) async fn stop(&self, vm: VmId) {
        let process = lock(&self.seen).clone();
        if let Some(process) = process
            && lock(&process.vms).remove(&vm).is_some()
        {
            // A process that is gone has ended its VMs.
            let _ = process.send(&Command::StopVm { vm }, &[]).await;
        }
    }

    /// Asks for figures of the VMs; what does not come in time is left out.
    pub(crate) async fn stats(&self) -> HashMap<VmId, VmStats> {
        let process = lock(&self.seen).clone();
        let Some(process) = process else {
            return HashMap::new();
        };
        let came = process.stats_came.notified();
        if process.send(&Command::Stats, &[]).await.is_ok() {
            let _ = tokio::time::timeout(STATS_TIME, came).await;
        }
        lock(&process.stats)
            .iter()
            .map(|stats| (stats.vm, *stats))
            .collect()
    }

    /// The process as the status tells it.
    pub(crate) fn status(&self) -> WorkerStatus {
        let process = lock(&self.seen).clone();
        WorkerStatus {
            tenant: self.tenant.clone(),
            pid: process
                .filter(|process| !process.gone.is_cancelled())
                .and_then(|process| process.pid),
            restarts: self.starts.load(Ordering::Relaxed).saturating_sub(1),
        }
    }

    /// The running process. Starts are made one at a time, with pauses that grow if they do not last.
    async fn process(&self) -> Result<Arc<Process>, WorkerError> {
        let mut current = self.current.lock().await;
        if let Some(process) = current.as_ref() {
            if !process.gone.is_cancelled() {
                return Ok(Arc::clone(process));
            }
            if process.started.elapsed() > HEALTHY {
                self.failures.store(0, Ordering::Relaxed);
            }
        }
        let failures = self.failures.fetch_add(1, Ordering::Relaxed);
        if failures > 1 {
            tokio::time::sleep(pause(failures - 1)).await;
        }
        let process = self.spawn()?;
        self.starts.fetch_add(1, Ordering::Relaxed);
        *lock(&self.seen) = Some(Arc::clone(&process));
        *current = Some(Arc::clone(&process));
        Ok(process)
    }

    fn spawn(&self) -> Result<Arc<Process>, WorkerError> {
        let (ours, theirs) = Socket::pair().map_err(WorkerError::Socket)?;
        ours.set_nonblocking().map_err(WorkerError::Socket)?;
        let mut child = tokio::process::Command::new(&self.executable)
            .arg("__worker")
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(theirs.into_fd()))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(WorkerError::Spawn)?;
        let ready = ours
            .try_clone()
            .and_then(|socket| watch_fd(socket.into_fd()))
            .map_err(WorkerError::Spawn)?;
        let process = Arc::new(Process {
            socket: ours,
            ready,
            vms: Mutex::default(),
            stats: Mutex::default(),
            stats_came: Notify::new(),
            pid: child.id(),
            gone: CancellationToken::new(),
            started: Instant::now(),
        });
        tracing::info!(tenant = %self.tenant, pid = process.pid, "worker started");
        if let Some(stderr) = child.stderr.take() {
            tokio::spawn(report(self.tenant.clone(), stderr));
        }
        let (listening, tenant) = (Arc::clone(&process), self.tenant.clone());
        tokio::spawn(async move {
            let why = listening.listen().await;
            let told = listening.gone.is_cancelled();
            listening.gone.cancel();
            let vms = std::mem::take(&mut *lock(&listening.vms));
            for vm in vms.into_values() {
                vm.link.lose("the worker process ended");
            }
            let _ = child.start_kill();
            let status = child.wait().await;
            if told {
                tracing::debug!(%tenant, "worker ended, as it was told to");
            } else {
                tracing::warn!(%tenant, %why, ?status, "worker ended");
            }
        });
        Ok(process)
    }

    /// Ends the process and all its VMs.
    pub(crate) fn kill(&self) {
        if let Some(process) = lock(&self.seen).take() {
            process.gone.cancel();
        }
    }
}

impl Process {
    /// Takes messages until the process ends or says something that cannot be.
    async fn listen(&self) -> String {
        loop {
            let mut ready = tokio::select! {
                ready = self.ready.readable() => match ready {
                    Ok(ready) => ready,
                    Err(error) => return error.to_string(),
                },
                () = self.gone.cancelled() => return "it was told to".to_owned(),
            };
            match self.socket.receive::<Event>() {
                Ok((event, _)) => self.take(event),
                Err(ReceiveError::Kernel(Errno::AGAIN)) => ready.clear_ready(),
                Err(ReceiveError::Kernel(Errno::INTR)) => {}
                Err(error) => return error.to_string(),
            }
        }
    }

    fn take(&self, event: Event) {
        match event {
            Event::Started { vm, setup_us } => {
                if let Some(vm) = self.vm(vm) {
                    let _ = vm.setup.set(Duration::from_micros(setup_us));
                }
            }
            Event::NotStarted { vm, reason } => {
                let vm = lock(&self.vms).remove(&vm);
                if let Some(vm) = vm {
                    let _ = vm.not_made.set(());
                    vm.link.lose(&reason);
                }
            }
            Event::Lost { vm, reason } => {
                let vm = lock(&self.vms).remove(&vm);
                if let Some(vm) = vm {
                    vm.link.lose(&reason);
                }
            }
            Event::Stopped { vm } => {
                lock(&self.vms).remove(&vm);
            }
            Event::Debug { vm, line } => {
                if let Some(vm) = self.vm(vm) {
                    let target = &vm.link.target;
                    tracing::info!(tenant = %target.tenant, app = %target.app, deployment = %target.deployment, "guest: {line}");
                    vm.link.note(&line);
                }
            }
            Event::Saved { vm, bytes } => {
                if let Some(vm) = self.vm(vm) {
                    let _ = vm.saved.set(Ok(bytes));
                }
            }
            Event::NotSaved { vm, reason } => {
                if let Some(vm) = self.vm(vm) {
                    let _ = vm.saved.set(Err(reason));
                }
            }
            Event::BadTemplate { vm, reason } => {
                let vm = lock(&self.vms).remove(&vm);
                if let Some(vm) = vm {
                    let _ = vm.bad_template.set(());
                    vm.link.lose(&reason);
                }
            }
            Event::Stats { vms } => {
                *lock(&self.stats) = vms;
                self.stats_came.notify_waiters();
            }
        }
    }

    fn vm(&self, vm: VmId) -> Option<Arc<Vm>> {
        lock(&self.vms).get(&vm).cloned()
    }

    async fn send(&self, command: &Command, fds: &[BorrowedFd<'_>]) -> Result<(), WorkerError> {
        loop {
            match self.socket.send(command, fds) {
                Err(SendError::Kernel(Errno::AGAIN)) => {
                    let mut ready = self.ready.writable().await.map_err(WorkerError::Spawn)?;
                    ready.clear_ready();
                }
                sent => return sent.map_err(WorkerError::Send),
            }
        }
    }
}

/// The pause before a start that follows `failures` that did not last.
fn pause(failures: u32) -> Duration {
    Duration::from_millis(50)
        .saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1)))
        .min(MAX_PAUSE)
}

/// Hands the worker's own words on to the log of the node.
async fn report(tenant: TenantName, stderr: tokio::process::ChildStderr) {
    let mut lines = BufReader::new(stderr).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        tracing::warn!(%tenant, "worker: {line}");
    }
}
