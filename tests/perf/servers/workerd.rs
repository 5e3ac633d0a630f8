//! workerd, the server of Cloudflare Workers: V8 in one process, one isolate that all requests share.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::rc::Rc;

use anyhow::{Context, Result, bail};

use super::{Answer, Process, Server, free_address};

/// What is installed, with its digest: `npm ci` takes nothing else.
const PACKAGE: &str = include_str!("workerd/package.json");
const LOCK: &str = include_str!("workerd/package-lock.json");
/// The version that both say.
const VERSION: &str = "1.20261117.1";

/// Where the peers of these comparisons are kept.
pub(crate) fn peers() -> Option<PathBuf> {
    let home = std::env::var_os("HOME")?;
    Some(PathBuf::from(home).join(".cache/cloister-peers"))
}

/// Finds workerd; fetches it once with npm where that `may` be done.
pub(crate) fn find(may_fetch: bool) -> Result<PathBuf> {
    let peers = peers().context("HOME is not set")?;
    let folder = peers.join(format!("workerd-{VERSION}"));
    let exe = folder.join("node_modules/@cloudflare/workerd-linux-64/bin/workerd");
    if super::wasmtime::is_there(&exe) {
        return Ok(exe);
    }
    if !may_fetch {
        bail!("workerd is not there: the row `workerd` fetches it when it is not --quick");
    }
    eprintln!("  npm fetches workerd {VERSION}");
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("package.json"), PACKAGE)?;
    std::fs::write(folder.join("package-lock.json"), LOCK)?;
    let mut npm = Command::new("npm");
    npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]);
    let output = npm
        .current_dir(&folder)
        .output()
        .context("npm does not start")?;
    if !output.status.success() {
        bail!("npm ci failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    match super::wasmtime::is_there(&exe) {
        true => Ok(exe),
        false => bail!("npm left no {}", exe.display()),
    }
}

/// Has it give this answer from JavaScript, in the way in which the component of the example does.
pub(crate) fn start(exe: &Path, answer: &Answer) -> Result<Server> {
    let address = free_address()?;
    let folder = tempfile::tempdir()?;
    let text = serde_json::to_string(std::str::from_utf8(&answer.body)?)?;
    let kind = serde_json::to_string(answer.kind.as_deref().unwrap_or("text/plain"))?;
    let script = format!(
        "addEventListener('fetch', (event) => event.respondWith(handle(event.request)));\n\
         async function handle(_request) {{\n  \
           return new Response({text}, {{ status: 200, headers: {{ 'content-type': {kind} }} }});\n\
         }}\n"
    );
    std::fs::write(folder.path().join("hello.js"), script)?;
    let config = format!(
        "using Workerd = import \"/workerd/workerd.capnp\";\n\
         const config :Workerd.Config = (\n  \
           services = [(name = \"main\", worker = .hello)],\n  \
           sockets = [(name = \"http\", address = \"{address}\", http = (), service = \"main\")],\n\
         );\n\
         const hello :Workerd.Worker = (\n  \
           serviceWorkerScript = embed \"hello.js\",\n  \
           compatibilityDate = \"2026-01-01\",\n\
         );\n"
    );
    std::fs::write(folder.path().join("config.capnp"), config)?;
    let mut command = Command::new(exe);
    command
        .arg("serve")
        .arg(folder.path().join("config.capnp"))
        .stdout(Stdio::null())
        .stderr(Stdio::from(std::fs::File::create(
            folder.path().join("log"),
        )?));
    let mut process = Process::start(&mut command)?;
    if let Err(error) = process.listens("workerd", address) {
        let said = std::fs::read_to_string(folder.path().join("log")).unwrap_or_default();
        return Err(error.context(said));
    }
    Ok(Server {
        name: "workerd".to_owned(),
        address,
        host: "localhost".to_owned(),
        pid: process.id(),
        vms: None,
        _keep: Rc::new((process, folder)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_pinned_is_said_once() {
        assert!(PACKAGE.contains(VERSION) && LOCK.contains(VERSION));
        assert!(LOCK.contains("\"integrity\": \"sha512-"));
    }
}
