//! All that can be wrong with a component or with compiling it.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// Why a component cannot be deployed: its author's to mend. The text says how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Rejection {
    /// No bytes.
    #[error("the file is empty")]
    Empty,
    /// More bytes than are accepted.
    #[error("the file has {size} bytes, and at most {limit} are accepted")]
    TooLarge {
        /// Bytes of the file.
        size: u64,
        /// Bytes accepted.
        limit: u64,
    },
    /// It begins well and ends in the middle.
    #[error("the file ends in the middle of the component (byte {offset}): copy or build it again")]
    Truncated {
        /// Where it ends.
        offset: u64,
    },
    /// WebAssembly's text format.
    #[error(
        "this is WebAssembly text: compile it to binary first (wasm-tools parse FILE.wat -o FILE.wasm)"
    )]
    Text,
    /// A native program or a compiled artifact.
    #[error(
        "this is an ELF file, machine code for one kind of processor: build the program for WebAssembly"
    )]
    Elf,
    /// Something else altogether.
    #[error(
        "this is not WebAssembly: it begins with {begin}, a component with 00 61 73 6d 0d 00 01 00"
    )]
    NotWasm {
        /// Its first bytes in hexadecimal.
        begin: String,
    },
    /// A module without the component around it.
    #[error(
        "this is a core module, not a component: wrap it (wasm-tools component new MODULE.wasm -o COMPONENT.wasm)"
    )]
    CoreModule,
    /// It answers no HTTP requests.
    #[error("the component does not export wasi:http/incoming-handler@0.2, so it cannot answer requests; {}", exported(.exports))]
    NoHandler {
        /// What it does export.
        exports: Vec<String>,
    },
    /// Built for the next version of WASI.
    #[error(
        "the component exports {export}: WASI 0.3 is not supported yet, build it for wasi:http/incoming-handler@0.2"
    )]
    Wasi03 {
        /// The export.
        export: String,
    },
    /// It needs functions that nobody has.
    #[error("the component imports what this platform does not have: {}", listed(.missing))]
    UnknownImports {
        /// What is missing.
        missing: Vec<MissingImport>,
    },
    /// More linear memories than one instance may have.
    #[error("the component has {count} linear memories or more, and at most {limit} are accepted")]
    TooManyMemories {
        /// Memories of one instance, counted until there were too many.
        count: u64,
        /// Memories accepted.
        limit: u64,
    },
    /// Malformed, or made with a proposal that is not supported.
    #[error("the component is not valid: {reason}")]
    Invalid {
        /// What the validator said, and where.
        reason: String,
    },
}

impl Rejection {
    /// A stable name of the case, for programs. `docs/errors.md` has each.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Empty => "component-empty",
            Self::TooLarge { .. } => "component-too-large",
            Self::Truncated { .. } => "component-truncated",
            Self::Text => "component-is-text",
            Self::Elf => "component-is-elf",
            Self::NotWasm { .. } => "component-not-wasm",
            Self::CoreModule => "component-is-core-module",
            Self::NoHandler { .. } => "component-no-handler",
            Self::Wasi03 { .. } => "component-wasi-0.3",
            Self::UnknownImports { .. } => "component-unknown-import",
            Self::TooManyMemories { .. } => "component-too-many-memories",
            Self::Invalid { .. } => "component-invalid",
        }
    }
}

/// An import that the guest cannot satisfy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingImport {
    /// Name of the imported interface, with its version, or of a function imported by itself.
    pub interface: String,
    /// The missing item in it; `None` if the whole interface is unknown.
    pub item: Option<String>,
}

impl fmt::Display for MissingImport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.item {
            Some(item) => write!(f, "{} of {}", item, self.interface),
            None => f.write_str(&self.interface),
        }
    }
}

/// Names of a message that are written out; the rest is counted.
const LISTED: usize = 8;

/// Most names that a rejection holds. A component may have a hundred thousand, each as long.
pub(crate) const MAX_NAMES: usize = 100;

/// The first characters of a text that a component chose.
pub(crate) fn clipped(text: &str, most: usize) -> String {
    text.chars().take(most).collect()
}

fn listed<T: fmt::Display>(names: &[T]) -> String {
    let mut text: Vec<String> = names.iter().take(LISTED).map(T::to_string).collect();
    match names.len().saturating_sub(LISTED) {
        0 => {}
        _ if names.len() >= MAX_NAMES => text.push("and many more".to_owned()),
        rest => text.push(format!("and {rest} more")),
    }
    text.join(", ")
}

fn exported(names: &[String]) -> String {
    if names.is_empty() {
        "it exports nothing".to_owned()
    } else {
        format!("it exports {}", listed(names))
    }
}

/// Why there is no artifact.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// The component is at fault.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// It cannot be compiled within the memory that a compiler gets.
    #[error("compiling the component needs more than {limit} bytes of memory")]
    OutOfMemory {
        /// The cap in bytes of address space.
        limit: u64,
    },
    /// It cannot be compiled in the time that a compiler gets.
    #[error("compiling the component takes longer than {} s", .limit.as_secs())]
    Timeout {
        /// The cap that was reached, of processor or wall time.
        limit: Duration,
    },
    /// The machine code is larger than an artifact may be.
    #[error("the compiled component is larger than {limit} bytes")]
    ArtifactTooLarge {
        /// The cap in bytes.
        limit: u64,
    },
    /// The compiler ended without an answer: its bug, or somebody killed it.
    #[error("the compiler ended without an answer ({status}): {stderr}")]
    Crashed {
        /// Exit status or signal.
        status: String,
        /// The last of what it printed.
        stderr: String,
    },
    /// The compiler could not begin: it could not be confined, or does not accept its own configuration.
    #[error("the compiler cannot be set up: {reason}")]
    Setup {
        /// What went wrong.
        reason: String,
    },
    /// A file or process operation of this host failed.
    #[error("cannot {what}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

impl CompileError {
    /// A stable name of the case, for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Rejected(rejection) => rejection.code(),
            Self::OutOfMemory { .. } => "compile-memory",
            Self::Timeout { .. } => "compile-timeout",
            Self::ArtifactTooLarge { .. } => "compile-too-large",
            Self::Crashed { .. } | Self::Setup { .. } | Self::Io { .. } => "compile-failed",
        }
    }

    /// Whether the component is to blame, not this host.
    pub fn is_component_fault(&self) -> bool {
        match self {
            Self::Rejected(_)
            | Self::OutOfMemory { .. }
            | Self::Timeout { .. }
            | Self::ArtifactTooLarge { .. } => true,
            Self::Crashed { .. } | Self::Setup { .. } | Self::Io { .. } => false,
        }
    }
}

/// Names the operation that an I/O error comes from.
pub(crate) fn io(what: &'static str) -> impl FnOnce(std::io::Error) -> CompileError {
    move |source| CompileError::Io { what, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One of each. What is not here does not compile in [`counted`].
    fn every() -> Vec<Rejection> {
        vec![
            Rejection::Empty,
            Rejection::TooLarge { size: 0, limit: 0 },
            Rejection::Truncated { offset: 0 },
            Rejection::Text,
            Rejection::Elf,
            Rejection::NotWasm {
                begin: String::new(),
            },
            Rejection::CoreModule,
            Rejection::NoHandler {
                exports: Vec::new(),
            },
            Rejection::Wasi03 {
                export: String::new(),
            },
            Rejection::UnknownImports {
                missing: Vec::new(),
            },
            Rejection::TooManyMemories { count: 0, limit: 0 },
            Rejection::Invalid {
                reason: String::new(),
            },
        ]
    }

    /// A number for each, from 0 on.
    fn counted(rejection: &Rejection) -> usize {
        match rejection {
            Rejection::Empty => 0,
            Rejection::TooLarge { .. } => 1,
            Rejection::Truncated { .. } => 2,
            Rejection::Text => 3,
            Rejection::Elf => 4,
            Rejection::NotWasm { .. } => 5,
            Rejection::CoreModule => 6,
            Rejection::NoHandler { .. } => 7,
            Rejection::Wasi03 { .. } => 8,
            Rejection::UnknownImports { .. } => 9,
            Rejection::TooManyMemories { .. } => 10,
            Rejection::Invalid { .. } => 11,
        }
    }

    #[test]
    fn every_rejection_is_in_the_documents() {
        let page = include_str!("../../../docs/errors.md");
        let (_, page) = page.split_once("<!-- components: begin -->").unwrap();
        let (table, _) = page.split_once("<!-- components: end -->").unwrap();
        let mut rows = table.lines().filter(|line| line.starts_with("| `"));
        for (number, rejection) in every().iter().enumerate() {
            assert_eq!(counted(rejection), number);
            let begin = format!("| `{}` | ", rejection.code());
            let row = rows.next().unwrap_or_default();
            assert!(row.starts_with(&begin), "docs/errors.md: {row} for {begin}");
        }
        assert_eq!(rows.next(), None, "docs/errors.md");
    }
}
