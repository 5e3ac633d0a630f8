//! The compiler process: standard input is the component, standard output the artifact, standard error the answer.
//!
//! It opens no file and needs none, so whatever takes it over finds three descriptors and no way to more.

use crate::error::{Rejection, clipped};
use crate::imports::imports;
use crate::inspect::{MAX_COMPONENT_BYTES, MAX_MEMORIES, inspect};
use crate::parent::CompileReport;
use rustix::process::Pid;
use sandbox_jail::{CompilerLimits, confine_compiler};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::process::ExitCode;
use std::time::Instant;
use wasmtime::Engine;
use wasmtime::component::Component;

/// First argument of a compiler process; the parent's process id and the three limits follow.
pub const ROLE: &str = "__compile";

/// Marks the line of standard error that holds the answer: other lines are a panic's or the allocator's.
pub(crate) const ANSWER: &str = "cloister-compile: ";

/// What the compiler tells its parent, as one line of JSON behind [`ANSWER`].
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Answer {
    /// The artifact is written.
    Done(CompileReport),
    /// The component is at fault.
    Rejected(Rejection),
    /// Reading the component or writing the artifact is, with this error number of the system.
    Io(i32),
    /// This process or host is.
    Failed(String),
}

/// Runs the compiler process; `args` are the arguments behind [`ROLE`].
///
/// Call it first thing in `main`, before any thread exists.
pub fn child_main(args: &[String]) -> ExitCode {
    let begun = Instant::now();
    let answer = match confine(args) {
        Ok(network) => match compile_streams() {
            Ok((artifact_bytes, imports)) => Answer::Done(CompileReport {
                milliseconds: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
                artifact_bytes,
                peak_memory_bytes: peak_memory(),
                without_network: network,
                imports,
            }),
            Err(answer) => answer,
        },
        Err(reason) => Answer::Failed(reason),
    };
    // JSON of these types always succeeds; an empty line is an answer that the parent calls a crash.
    let line = serde_json::to_string(&answer).unwrap_or_default();
    let told = writeln!(std::io::stderr(), "\n{ANSWER}{line}");
    if told.is_ok() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// The arguments of a compiler process of this process.
pub(crate) fn arguments(limits: &CompilerLimits) -> [String; 5] {
    [
        ROLE.to_owned(),
        std::process::id().to_string(),
        limits.memory_bytes.to_string(),
        limits.cpu_seconds.to_string(),
        limits.output_bytes.to_string(),
    ]
}

fn confine(args: &[String]) -> Result<bool, String> {
    let [parent, memory, cpu, output] = args else {
        return Err("a compiler is started by its daemon, with four arguments".to_owned());
    };
    let number = |text: &String| text.parse().map_err(|_| format!("{text} is not a number"));
    let parent = parent
        .parse()
        .ok()
        .and_then(Pid::from_raw)
        .ok_or("the first argument is not a process id")?;
    let limits = CompilerLimits {
        memory_bytes: number(memory)?,
        cpu_seconds: number(cpu)?,
        output_bytes: number(output)?,
    };
    let confinement = confine_compiler(parent, &limits).map_err(|error| error.to_string())?;
    Ok(confinement.network)
}

/// Compiles standard input to standard output; bytes written, and what the component imports.
fn compile_streams() -> Result<(u64, Vec<String>), Answer> {
    let failed = |error: std::io::Error| match error.raw_os_error() {
        Some(number) => Answer::Io(number),
        None => Answer::Failed(error.to_string()),
    };
    let mut bytes = Vec::new();
    let mut input = stream(std::io::stdin().as_fd())
        .map_err(failed)?
        .take(MAX_COMPONENT_BYTES + 1);
    input.read_to_end(&mut bytes).map_err(failed)?;
    let artifact = compile_bytes(&bytes)?;
    stream(std::io::stdout().as_fd())
        .and_then(|mut output| output.write_all(&artifact))
        .map_err(failed)?;
    Ok((artifact.len() as u64, imports(&bytes)))
}

fn stream(fd: BorrowedFd<'_>) -> std::io::Result<File> {
    fd.try_clone_to_owned().map(File::from)
}

/// Checks and compiles a component in this process.
fn compile_bytes(bytes: &[u8]) -> Result<Vec<u8>, Answer> {
    inspect(bytes).map_err(Answer::Rejected)?;
    let engine = crate::engine_config()
        .and_then(|config| Engine::new(&config))
        .map_err(|error| Answer::Failed(format!("{error:#}")))?;
    let invalid = |error: wasmtime::Error| {
        Answer::Rejected(Rejection::Invalid {
            reason: clipped(&format!("{error:#}"), 1000),
        })
    };
    let component = Component::new(&engine, bytes).map_err(invalid)?;
    // A module counts as often as it is instantiated, which only the compiler knows.
    let count = component
        .resources_required()
        .map(|resources| u64::from(resources.num_memories));
    if let Some(count) = count.filter(|count| *count > MAX_MEMORIES) {
        return Err(Answer::Rejected(Rejection::TooManyMemories {
            count,
            limit: MAX_MEMORIES,
        }));
    }
    component.serialize().map_err(invalid)
}

/// The most memory that this process has used, in bytes, where `/proc` tells.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim()
        .strip_suffix(" kB")?
        .trim()
        .parse::<u64>()
        .ok()
        .map(|kib| kib * 1024)
}
