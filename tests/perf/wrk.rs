//! The client that loads all servers alike: `wrk`, and what it says.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::process::Command;

use crate::servers::Server;

/// Percentiles that are measured.
pub(crate) const PERCENTILES: [f64; 6] = [50.0, 75.0, 90.0, 95.0, 99.0, 99.9];

/// Prints the figures as one line that is easy to read back. Latencies are in microseconds.
const SCRIPT: &str = r#"
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format("figures %d %d %d", summary.requests, summary.duration, e.connect + e.read + e.write + e.timeout + e.status))
  for _, p in ipairs({50, 75, 90, 95, 99, 99.9}) do io.write(string.format(" %d", latency:percentile(p))) end
  io.write("\n")
end
"#;

/// The program `wrk`.
#[derive(Debug)]
pub(crate) struct Wrk {
    file: PathBuf,
    script: tempfile::NamedTempFile,
}

/// What one run measured.
#[derive(Debug, Clone)]
pub(crate) struct Measured {
    /// Requests that were answered.
    pub(crate) requests: u64,
    /// Requests a second.
    pub(crate) throughput: f64,
    /// Latency for each of [`PERCENTILES`], in microseconds.
    pub(crate) latency: Vec<u64>,
    /// Requests that failed, or had another status than 2xx or 3xx.
    pub(crate) errors: u64,
}

/// Finds `wrk` in the PATH.
pub(crate) fn find() -> Result<Wrk> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let file = std::env::split_paths(&path)
        .map(|folder| folder.join("wrk"))
        .find(|file| file.is_file())
        .context("wrk is not installed: it is the client of this row (apt install wrk)")?;
    let script = tempfile::Builder::new().suffix(".lua").tempfile()?;
    std::fs::write(script.path(), SCRIPT)?;
    Ok(Wrk { file, script })
}

impl Wrk {
    /// Loads a server for this time.
    pub(crate) async fn run(
        &self,
        server: &Server,
        path: &str,
        connections: u32,
        time: Duration,
    ) -> Result<Measured> {
        let output = Command::new(&self.file)
            .arg("--threads=1")
            .arg(format!("--connections={connections}"))
            .arg(format!("--duration={}s", time.as_secs().max(1)))
            .arg("--header")
            .arg(format!("Host: {}", server.host))
            .arg("--script")
            .arg(self.script.path())
            .arg(format!("http://{}{path}", server.address))
            .output()
            .await?;
        let said = String::from_utf8_lossy(&output.stdout);
        let line = said.lines().find_map(|line| line.strip_prefix("figures "));
        let line = line.with_context(|| {
            let more = String::from_utf8_lossy(&output.stderr);
            format!("wrk said: {said}{more}")
        })?;
        let figures: Vec<u64> = line.split(' ').map(str::parse).collect::<Result<_, _>>()?;
        let [requests, micros, errors, latency @ ..] = figures.as_slice() else {
            bail!("wrk said: {line}");
        };
        if latency.len() != PERCENTILES.len() {
            bail!("wrk said: {line}");
        }
        if *requests == 0 {
            bail!("{} answered nothing", server.name);
        }
        Ok(Measured {
            requests: *requests,
            throughput: *requests as f64 / (*micros as f64 / 1e6),
            latency: latency.to_vec(),
            errors: *errors,
        })
    }
}
