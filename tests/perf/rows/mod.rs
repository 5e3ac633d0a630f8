//! The rows: what is measured, one file each.

mod cold;
mod compute;
mod density;
mod engines;
mod flood;
mod latency;
mod sleeping;
mod soak;
mod stream;
mod throughput;
mod vm_mode;
mod workerd;

use anyhow::Result;
use clap::ValueEnum;

use crate::bench::Bench;
use crate::report::Outcome;

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Row {
    /// Requests a second with many connections, beside wasmtime serve and a bare hyper server.
    Throughput,
    /// Latency with one connection, beside the same.
    Latency,
    /// JavaScript and Python in a fresh instance for each request, beside wasmtime serve.
    Engines,
    /// JavaScript in a fresh instance for each request, beside V8 that keeps its isolate.
    Workerd,
    /// A whole VM put back after each request.
    VmMode,
    /// Requests that find no VM.
    Cold,
    /// Memory of VMs that are all there at once.
    Density,
    /// Deployments scaled to zero, and how they wake.
    Sleeping,
    /// Processor time of wasm code, beside wasmtime serve.
    Compute,
    /// A long body there and back, beside wasmtime serve.
    Stream,
    /// A tenant while another one floods.
    Flood,
    /// Memory and descriptors over a long time under mixed load.
    Soak,
}

impl Row {
    /// Its name on the command line.
    pub(crate) fn name(self) -> String {
        let value = self.to_possible_value();
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// Measures it.
    pub(crate) async fn run(self, bench: &Bench) -> Result<Outcome> {
        match self {
            Row::Throughput => throughput::run(bench).await,
            Row::Latency => latency::run(bench).await,
            Row::Engines => engines::run(bench).await,
            Row::Workerd => workerd::run(bench).await,
            Row::VmMode => vm_mode::run(bench).await,
            Row::Cold => cold::run(bench).await,
            Row::Density => density::run(bench).await,
            Row::Sleeping => sleeping::run(bench).await,
            Row::Compute => compute::run(bench).await,
            Row::Stream => stream::run(bench).await,
            Row::Flood => flood::run(bench).await,
            Row::Soak => soak::run(bench).await,
        }
    }
}
