//! The client of all servers: `wrk`, and what it says.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::peer::Server;

/// Prints the figures as one line that is easy to read back. Latencies are in microseconds.
const SCRIPT: &str = r#"
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format("figures %d %d %d %d %d %d\n", summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    latency.max, e.connect + e.read + e.write + e.timeout + e.status))
end
"#;

/// The program `wrk`.
#[derive(Debug)]
pub(crate) struct Wrk {
    file: PathBuf,
    script: tempfile::NamedTempFile,
}

/// What one run measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Measured {
    /// Requests that were answered.
    pub(crate) requests: u64,
    /// Requests a second.
    pub(crate) throughput: f64,
    /// Median latency, in microseconds.
    pub(crate) p50: u64,
    /// Latency that one request of a hundred is above, in microseconds.
    pub(crate) p99: u64,
    /// Requests that failed, or had another status than 2xx or 3xx.
    pub(crate) errors: u64,
}

/// Finds `wrk` in the PATH.
pub(crate) fn find() -> Result<Wrk> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let file = std::env::split_paths(&path)
        .map(|folder| folder.join("wrk"))
        .find(|file| file.is_file())
        .context("wrk is not installed: it is the client of this comparison (apt install wrk)")?;
    let script = tempfile::Builder::new().suffix(".lua").tempfile()?;
    std::fs::write(script.path(), SCRIPT)?;
    Ok(Wrk { file, script })
}

impl Wrk {
    /// Loads a server for this time.
    pub(crate) fn run(
        &self,
        server: &dyn Server,
        path: &str,
        connections: u32,
        time: Duration,
    ) -> Result<Measured> {
        let output = Command::new(&self.file)
            .arg("--threads=1")
            .arg(format!("--connections={connections}"))
            .arg(format!("--duration={}s", time.as_secs().max(1)))
            .arg("--header")
            .arg(format!("Host: {}", server.host()))
            .arg("--script")
            .arg(self.script.path())
            .arg(format!("http://{}{path}", server.address()))
            .output()?;
        let said = String::from_utf8_lossy(&output.stdout);
        let line = said.lines().find_map(|line| line.strip_prefix("figures "));
        let line = line.with_context(|| {
            format!(
                "wrk said: {said}{}",
                String::from_utf8_lossy(&output.stderr)
            )
        })?;
        let figures: Vec<u64> = line.split(' ').map(str::parse).collect::<Result<_, _>>()?;
        let &[requests, micros, p50, p99, _max, errors] = figures.as_slice() else {
            bail!("wrk said: {line}");
        };
        if requests == 0 {
            bail!("{} answered nothing", server.name());
        }
        let throughput = requests as f64 / (micros as f64 / 1e6);
        Ok(Measured {
            requests,
            throughput,
            p50,
            p99,
            errors,
        })
    }
}
