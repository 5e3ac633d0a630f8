//! `wasmtime serve`, with the command-line world that Cloister gives too.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::{Process, Server, free_address};
use crate::bench::{Bench, Component};
use crate::report::Outcome;

/// What makes `wasmtime serve` faster where memories are small: they are cleared rather than given back.
pub(crate) const TUNED: [&str; 6] = [
    "-O",
    "pooling-allocator=y",
    "-O",
    "pooling-memory-keep-resident=4194304",
    "-O",
    "pooling-table-keep-resident=65536",
];

/// A component that was compiled ahead, so that starting does not measure the compiler.
#[derive(Debug)]
pub(crate) struct Compiled {
    exe: PathBuf,
    file: PathBuf,
    /// Options without which it cannot be served.
    options: &'static [&'static str],
    folder: tempfile::TempDir,
}

/// It serves a component as it is by default; without it, the outcome says so, where that is allowed.
///
/// # Errors
/// As [`Compiled::new`], and when it does not start.
pub(crate) fn beside(
    bench: &Bench,
    component: &Component,
    outcome: &mut Outcome,
) -> Result<Option<Server>> {
    let compiled = bench.optional("wasmtime serve", Compiled::new(component), outcome)?;
    compiled.map(|compiled| compiled.serve(&[])).transpose()
}

impl Compiled {
    /// Compiles a component.
    ///
    /// # Errors
    /// When there is no wasmtime, or it does not like the component.
    pub(crate) fn new(component: &Component) -> Result<Rc<Self>> {
        let exe = find()?;
        let folder = tempfile::tempdir()?;
        let source = folder.path().join("component.wasm");
        let file = folder.path().join("component.cwasm");
        std::fs::write(&source, &component.bytes)?;
        let mut command = Command::new(&exe);
        command.arg("compile").arg(&source).arg("-o").arg(&file);
        let output = command.output()?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("wasmtime compile failed: {said}");
        }
        Ok(Rc::new(Self {
            exe,
            file,
            // The tests' probe has more memories than the pool is made for.
            options: match component.name.as_str() {
                "probe" => &["-O", "pooling-max-memories-per-module=8"],
                _ => &[],
            },
            folder,
        }))
    }

    /// Serves it, with these options more.
    pub(crate) fn serve(self: &Rc<Self>, options: &[&str]) -> Result<Server> {
        let address = free_address()?;
        let log = self.folder.path().join(address.port().to_string());
        let mut command = Command::new(&self.exe);
        command
            .args(["serve", "-S", "cli,config", "--allow-precompiled"])
            .args(["--addr", &address.to_string()])
            .args(self.options)
            .args(options)
            .arg(&self.file)
            .stdout(Stdio::null())
            .stderr(Stdio::from(std::fs::File::create(&log)?));
        let mut process = Process::start(&mut command)?;
        if let Err(error) = process.listens("wasmtime serve", address) {
            return Err(error.context(std::fs::read_to_string(&log).unwrap_or_default()));
        }
        Ok(Server {
            name: "wasmtime serve".to_owned(),
            address,
            host: "localhost".to_owned(),
            pid: process.id(),
            vms: None,
            _keep: Rc::new((process, Rc::clone(self))),
        })
    }

    /// Time from "there is no process" to the first answer.
    pub(crate) async fn cold_start(self: &Rc<Self>, path: &str) -> Result<Duration> {
        let begin = Instant::now();
        let server = self.serve(&[])?;
        let answer = server.answer(path).await?;
        let time = begin.elapsed();
        match answer.status {
            200 => Ok(time),
            status => bail!("wasmtime serve answers with {status}"),
        }
    }
}

/// `$WASMTIME`, the PATH, or the usual place of the peers of this comparison.
fn find() -> Result<PathBuf> {
    let given = std::env::var_os("WASMTIME").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = super::workerd::peers().map(|peers| peers.join("bin/wasmtime"));
    let places = given
        .into_iter()
        .chain(std::env::split_paths(&path).map(|folder| folder.join("wasmtime")))
        .chain(usual);
    places
        .into_iter()
        .find(|file| file.is_file())
        .context("no wasmtime to compare with: install it or set WASMTIME")
}

/// What the wasmtime that is compared with calls itself.
pub(crate) fn version() -> Option<String> {
    let output = Command::new(find().ok()?).arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    Some(text.trim().to_owned())
}

/// Whether a file is there and not empty.
pub(super) fn is_there(file: &Path) -> bool {
    file.metadata()
        .is_ok_and(|meta| meta.is_file() && meta.len() > 0)
}
