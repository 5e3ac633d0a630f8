//! Starts a compiler process, watches it, and puts what it made into the cache.

use crate::cache;
use crate::child::{ANSWER, Answer, arguments};
use crate::error::{CompileError, Rejection, io};
use crate::inspect::MAX_COMPONENT_BYTES;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use sandbox_jail::CompilerLimits;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use wasmtime::Engine;

/// Prefix of files that a compilation is still writing. Those of a daemon that died stay; whoever owns the folder removes
/// what is no artifact of its own.
const UNFINISHED: &str = ".compiling-";

/// Bytes of a compiler's standard error that are kept, the last ones.
const KEPT_BYTES: usize = 64 << 10;

/// What one compilation may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompileLimits {
    /// Address space in bytes.
    pub memory_bytes: u64,
    /// Processor time of all its threads together; whole seconds count.
    pub cpu: Duration,
    /// Time on the clock.
    pub wall: Duration,
    /// Size of the artifact in bytes.
    pub artifact_bytes: u64,
}

impl Default for CompileLimits {
    /// 4 GiB, 300 s, 300 s, 1 GiB.
    fn default() -> Self {
        let minutes = Duration::from_secs(300);
        Self {
            memory_bytes: 4 << 30,
            cpu: minutes,
            wall: minutes,
            artifact_bytes: 1 << 30,
        }
    }
}

/// What a compilation took.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompileReport {
    /// Time on the clock in milliseconds.
    pub milliseconds: u64,
    /// Size of the artifact in bytes.
    pub artifact_bytes: u64,
    /// The most memory that the compiler had in use, in bytes, where the host tells.
    pub peak_memory_bytes: Option<u64>,
    /// Whether the compiler was cut off from the network.
    pub without_network: bool,
    /// The interfaces that the component imports, without versions, in order. Said by a process that read hostile bytes:
    /// good for telling people, not for deciding what a component may.
    #[serde(default)]
    pub imports: Vec<String>,
}

/// A compiled component, on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifact {
    /// The file: `KEY.cwasm` in the folder that was given.
    pub path: PathBuf,
    /// Its key, of component, version, configuration and processor features.
    pub key: String,
    /// What making it took; `None` if it was there already.
    pub report: Option<CompileReport>,
    /// See [`CompileReport::imports`]; kept beside the artifact, in `KEY.imports`.
    pub imports: Vec<String>,
}

/// Compiles the component in a file to an artifact in a folder, unless it is there already.
///
/// Blocks for as long as that takes, up to the wall limit: call it where blocking is allowed. `exe` is this program, whose
/// `main` hands [`crate::ROLE`] to [`crate::child_main`]. The calling thread must live until the call returns, as the
/// compiler is killed with it. Compiling the same component twice at once is fine; the later result replaces the equal earlier one.
pub fn compile(
    exe: &Path,
    component: &Path,
    out_dir: &Path,
    limits: &CompileLimits,
) -> Result<Artifact, CompileError> {
    let mut input = File::open(component).map_err(io("open the component"))?;
    let size = input.metadata().map_err(io("open the component"))?.len();
    if size > MAX_COMPONENT_BYTES {
        return Err(Rejection::TooLarge {
            size,
            limit: MAX_COMPONENT_BYTES,
        }
        .into());
    }
    let engine = crate::engine_config()
        .and_then(|config| Engine::new(&config))
        .map_err(|error| CompileError::Setup {
            reason: format!("{error:#}"),
        })?;
    let key = cache::key(
        &engine,
        &digest(&mut input).map_err(io("read the component"))?,
    );
    let path = out_dir.join(format!("{key}.{}", cache::EXTENSION));
    let beside = path.with_extension(cache::IMPORTS_EXTENSION);
    if path.try_exists().map_err(io("look for the artifact"))?
        && let Some(imports) = read_imports(&beside)
    {
        return Ok(Artifact {
            path,
            key,
            report: None,
            imports,
        });
    }
    let output = tempfile::Builder::new()
        .prefix(UNFINISHED)
        .tempfile_in(out_dir)
        .map_err(io("create the artifact"))?;
    let report = run(
        exe,
        File::open(component).map_err(io("open the component"))?,
        output.as_file(),
        limits,
    )?;
    // First, so that an artifact is never without it.
    write_imports(out_dir, &beside, &report.imports).map_err(io("write the imports"))?;
    output
        .as_file()
        .sync_all()
        .map_err(io("write the artifact to disk"))?;
    output
        .persist(&path)
        .map_err(|error| io("name the artifact")(error.error))?;
    File::open(out_dir)
        .and_then(|folder| folder.sync_all())
        .map_err(io("write the artifact's folder to disk"))?;
    let imports = report.imports.clone();
    Ok(Artifact {
        path,
        key,
        report: Some(report),
        imports,
    })
}

/// What is kept beside an artifact; none where it cannot be read, and then the artifact is made anew.
fn read_imports(path: &Path) -> Option<Vec<String>> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

fn write_imports(folder: &Path, path: &Path, imports: &[String]) -> std::io::Result<()> {
    let mut file = tempfile::Builder::new()
        .prefix(UNFINISHED)
        .tempfile_in(folder)?;
    serde_json::to_writer(&mut file, imports)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

fn digest(file: &mut File) -> std::io::Result<[u8; 32]> {
    let mut digest = Sha256::new();
    let mut block = vec![0; 64 << 10];
    loop {
        match file.read(&mut block) {
            Ok(0) => return Ok(digest.finalize().into()),
            Ok(read) => digest.update(block.get(..read).unwrap_or_default()),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Runs a compiler on open files and says what came of it.
fn run(
    exe: &Path,
    input: File,
    output: &File,
    limits: &CompileLimits,
) -> Result<CompileReport, CompileError> {
    let output = output.try_clone().map_err(io("start the compiler"))?;
    let confinement = CompilerLimits {
        memory_bytes: limits.memory_bytes,
        cpu_seconds: limits.cpu.as_secs().max(1),
        output_bytes: limits.artifact_bytes,
    };
    let mut child = Command::new(exe)
        .args(arguments(&confinement))
        .env_clear()
        .current_dir("/")
        .stdin(input)
        .stdout(output)
        .stderr(Stdio::piped())
        .spawn()
        .map_err(io("start the compiler"))?;
    let watched = watch(&mut child, Instant::now() + limits.wall);
    // Whatever happened, it ends here and is not left a zombie; killing one that has ended does nothing.
    let _ = child.kill();
    let status = child.wait().map_err(io("wait for the compiler"))?;
    let Some(stderr) = watched.map_err(|error| io("watch the compiler")(error.into()))? else {
        return Err(CompileError::Timeout { limit: limits.wall });
    };
    judge(status, &stderr, limits)
}

/// Waits for a process to end and returns what it printed; `None` if the deadline came first.
fn watch(child: &mut Child, deadline: Instant) -> rustix::io::Result<Option<Vec<u8>>> {
    let pid = i32::try_from(child.id())
        .ok()
        .and_then(Pid::from_raw)
        .ok_or(rustix::io::Errno::SRCH)?;
    let process = pidfd_open(pid, PidfdFlags::empty())?;
    let mut stderr = child.stderr.take();
    if let Some(stderr) = &stderr {
        rustix::io::ioctl_fionbio(stderr, true)?;
    }
    let mut kept = Vec::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        let mut fds = vec![PollFd::new(&process, PollFlags::IN)];
        fds.extend(
            stderr
                .as_ref()
                .map(|stderr| PollFd::new(stderr, PollFlags::IN)),
        );
        let timeout = Timespec::try_from(left).map_err(|_| rustix::io::Errno::INVAL)?;
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error),
        }
        let ended = fds.first().is_some_and(|fd| !fd.revents().is_empty());
        drop(fds);
        if let Some(pipe) = &mut stderr
            && drain(pipe, &mut kept)
        {
            stderr = None;
        }
        if ended {
            return Ok(Some(kept));
        }
    }
}

/// Takes what is in the pipe, keeping the last of it; whether the pipe has ended.
fn drain(pipe: &mut ChildStderr, kept: &mut Vec<u8>) -> bool {
    let mut block = [0; 4096];
    loop {
        match pipe.read(&mut block) {
            Ok(0) => return true,
            Ok(read) => {
                kept.extend_from_slice(block.get(..read).unwrap_or_default());
                let surplus = kept.len().saturating_sub(KEPT_BYTES);
                kept.drain(..surplus);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            Err(_) => return true,
        }
    }
}

/// What a compiler's end means. Its words are a tenant's if it was taken over: they are shown to that tenant only.
fn judge(
    status: ExitStatus,
    stderr: &[u8],
    limits: &CompileLimits,
) -> Result<CompileReport, CompileError> {
    const SIGXCPU: i32 = 24;
    const SIGXFSZ: i32 = 25;
    let text = String::from_utf8_lossy(stderr);
    let answer = text
        .lines()
        .rev()
        .find_map(|line| line.strip_prefix(ANSWER));
    if let Some(answer) = answer.and_then(|answer| serde_json::from_str(answer).ok())
        && status.success()
    {
        return match answer {
            Answer::Done(report) => Ok(report),
            Answer::Rejected(rejection) => Err(rejection.into()),
            Answer::Io(number) => Err(io(
                "pass the component and the artifact through the compiler",
            )(std::io::Error::from_raw_os_error(number))),
            Answer::Failed(reason) if is_out_of_memory(&reason) => Err(CompileError::OutOfMemory {
                limit: limits.memory_bytes,
            }),
            Answer::Failed(reason) => Err(CompileError::Setup { reason }),
        };
    }
    match status.signal() {
        Some(SIGXCPU) => Err(CompileError::Timeout { limit: limits.cpu }),
        Some(SIGXFSZ) => Err(CompileError::ArtifactTooLarge {
            limit: limits.artifact_bytes,
        }),
        _ if is_out_of_memory(&text) => Err(CompileError::OutOfMemory {
            limit: limits.memory_bytes,
        }),
        _ => {
            let begin = text.char_indices().nth_back(999).map_or(0, |(at, _)| at);
            let stderr = text.get(begin..).unwrap_or_default().trim().to_owned();
            Err(CompileError::Crashed {
                status: status.to_string(),
                stderr,
            })
        }
    }
}

/// Whether a message tells of an allocation that failed: Rust's own, a mapping's, or a thread's stack.
fn is_out_of_memory(text: &str) -> bool {
    [
        "memory allocation of",
        "os error 12",
        "Cannot allocate memory",
        "os error 11",
    ]
    .iter()
    .any(|sign| text.contains(sign))
}
