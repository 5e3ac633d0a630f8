//! The compiler's process, as the control plane sees it.

use std::error::Error;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use platform_control::sandbox::{CompileFailure, Compiled, Compiler};
use sandbox_aot::{CompileError, CompileLimits};

/// Starts `exe` again for each component.
#[derive(Debug)]
pub(crate) struct CompilerProcess {
    pub(crate) exe: PathBuf,
}

impl Compiler for CompilerProcess {
    fn compile(&self, component: &Path, folder: &Path) -> Result<Compiled, CompileFailure> {
        let limits = CompileLimits::default();
        let compiled = sandbox_aot::compile(&self.exe, component, folder, &limits);
        let compiled = compiled.map_err(failure)?;
        Ok(Compiled {
            artifact: compiled.path,
            imports: compiled.imports,
        })
    }
}

/// Whose fault an error of the compiler is.
fn failure(error: CompileError) -> CompileFailure {
    let detail = error.to_string();
    match &error {
        CompileError::Rejected(rejection) => CompileFailure::Rejected {
            code: rejection.code(),
            detail,
        },
        CompileError::OutOfMemory { .. }
        | CompileError::Timeout { .. }
        | CompileError::ArtifactTooLarge { .. } => CompileFailure::Limit(detail),
        CompileError::Io { source, .. } if source.kind() == ErrorKind::StorageFull => {
            CompileFailure::DiskFull(format!("{detail}: the disk of the data folder is full"))
        }
        _ => CompileFailure::Failed(with_cause(detail, &error)),
    }
}

fn with_cause(detail: String, error: &dyn Error) -> String {
    match error.source() {
        Some(cause) => format!("{detail}: {cause}"),
        None => detail,
    }
}
