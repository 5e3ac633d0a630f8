//! `status`: what the node is doing.

use platform_model::{Status, VmState};
use sdk_client::Client;

use crate::failure::CliError;
use crate::quantity::{size, span};
use crate::table::{Table, number, text};
use crate::terminal::{Terminal, Tone};

/// Prints the node, its workers and its VMs.
pub(super) async fn run(client: &Client, terminal: &Terminal) -> Result<(), CliError> {
    let status = client.status().await?;
    if terminal.json {
        return terminal.print_json(&status);
    }
    terminal.print(&format!(
        "{} {}, wasmtime {}, up {}",
        terminal.paint(Tone::Strong, "cloister"),
        status.version,
        status.wasmtime,
        span(status.uptime_seconds)
    ))?;
    if status.vms.is_empty() && status.workers.is_empty() {
        return terminal.print("no VMs: nothing is deployed");
    }
    terminal.print(&format!("\n{}", vms(&status, terminal).text()))?;
    terminal.print(&format!("\n{}", workers(&status, terminal).text()))
}

fn vms(status: &Status, terminal: &Terminal) -> Table<9> {
    let columns = [
        text("APP"),
        text("TENANT"),
        number("DEPLOYMENT").optional(),
        text("STATE"),
        number("REQUESTS"),
        number("TRAPS"),
        number("RESTORES").optional(),
        number("EXITS").optional(),
        number("RESIDENT").optional(),
    ];
    let mut table = Table::new(terminal, columns);
    for vm in &status.vms {
        let (state, tone) = match vm.state {
            VmState::Starting => ("starting", Tone::Warn),
            VmState::Ready => ("ready", Tone::Good),
            VmState::Lost => ("lost", Tone::Bad),
            VmState::Stopped => ("stopped", Tone::Dim),
        };
        let fault = |count: u64| (count.to_string(), (count > 0).then_some(Tone::Warn));
        table.toned([
            (vm.app.to_string(), None),
            (vm.tenant.to_string(), None),
            (vm.deployment.to_string(), None),
            (state.to_owned(), Some(tone)),
            (vm.requests.to_string(), None),
            fault(vm.traps),
            fault(vm.restores),
            (vm.exits.to_string(), None),
            (size(vm.resident_bytes), None),
        ]);
    }
    table
}

fn workers(status: &Status, terminal: &Terminal) -> Table<3> {
    let mut table = Table::new(
        terminal,
        [text("WORKER OF"), number("PID"), number("RESTARTS")],
    );
    for worker in &status.workers {
        let pid = match worker.pid {
            Some(pid) => (pid.to_string(), None),
            None => ("restarting".to_owned(), Some(Tone::Warn)),
        };
        let restarts = (
            worker.restarts.to_string(),
            (worker.restarts > 0).then_some(Tone::Warn),
        );
        table.toned([(worker.tenant.to_string(), None), pid, restarts]);
    }
    table
}
