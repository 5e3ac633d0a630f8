//! The metrics: their names, what they say, and what each is made of.
//!
//! Labels are tenants and apps and words of fixed lists. Apps that the data plane does not list are one, called
//! [`OTHERS`], which no app can be.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::SystemTime;

use platform_data::DataStatus;
use platform_data::metrics::{
    CLASSES, DataMetrics, EGRESS, Figures, REQUEST_BOUNDS, TRAPS, Times, WAIT_BOUNDS,
};
use platform_model::VmState;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, EncodeLabelSet, MetricEncoder,
    NoLabelSet, prometheus_text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::count;
use super::process::Process;
use crate::api::About;

/// Tenant and name of all apps together that are not listed.
pub(super) const OTHERS: &str = "_other";

/// Everything that a page is made of.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) data: DataMetrics,
    pub(super) status: DataStatus,
    pub(super) log_dropped_bytes: u64,
    pub(super) process: Process,
    pub(super) started: SystemTime,
    pub(super) about: About,
}

impl Read {
    /// The page.
    pub(super) fn page(self) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self));
        let mut page = String::new();
        // Nothing is written but to memory.
        let _ = prometheus_text::encode(&mut page, &registry);
        page
    }

    /// What is to be shown of apps: tenant, app, figures.
    fn apps(&self) -> Vec<(&str, &str, &Figures)> {
        let listed = self.data.apps.iter().filter(|app| app.listed);
        let mut apps: Vec<_> = listed
            .map(|app| (app.tenant.as_str(), app.app.as_str(), &app.total))
            .collect();
        if self.data.unlisted != Figures::default() {
            apps.push((OTHERS, OTHERS, &self.data.unlisted));
        }
        apps
    }

    /// Memory that the VMs of each app have resident, in bytes.
    fn resident(&self) -> BTreeMap<(&str, &str), u64> {
        let listed = self.data.apps.iter().filter(|app| app.listed);
        let listed: BTreeSet<_> = listed
            .map(|app| (app.tenant.as_str(), app.app.as_str()))
            .collect();
        let mut resident = BTreeMap::new();
        for vm in &self.status.vms {
            let app = (vm.tenant.as_str(), vm.app.as_str());
            let app = listed.get(&app).copied().unwrap_or((OTHERS, OTHERS));
            *resident.entry(app).or_insert(0) += vm.resident_bytes;
        }
        resident
    }
}

impl Collector for Read {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page(encoder);
        self.requests(&mut page)?;
        self.guests(&mut page)?;
        self.workers(&mut page)?;
        self.node(&mut page)?;
        self.process(&mut page)
    }
}

impl Read {
    fn requests(&self, page: &mut Page<'_>) -> fmt::Result {
        let apps = self.apps();
        let name = "cloister_app_requests";
        let help = "Requests that ended, by class of the status, or gone where the client left before there was one";
        page.counters(
            name,
            help,
            by_kind("class", &CLASSES, &apps, |f| &f.requests),
        )?;
        let name = "cloister_app_request_duration_seconds";
        let help = "Time from the end of a request's head to the end of its response";
        page.times(name, help, &REQUEST_BOUNDS, of_apps(&apps, |f| &f.duration))?;
        let name = "cloister_app_responses_cut_off";
        let help = "Responses that were cut off, as the component failed or the client left";
        page.counters(name, help, of_apps(&apps, |f| f.cut_off))?;
        let name = "cloister_app_request_body_bytes";
        let help = "Bytes of requests' bodies that were read";
        page.counters(name, help, of_apps(&apps, |f| f.bytes_in))?;
        let name = "cloister_app_response_body_bytes";
        let help = "Bytes of responses' bodies that were handed to connections";
        page.counters(name, help, of_apps(&apps, |f| f.bytes_out))?;
        let name = "cloister_app_requests_in_flight";
        let help = "Requests that are under way, waiting ones included";
        page.gauges(name, help, of_apps(&apps, |f| f.in_flight))?;
        let name = "cloister_app_queue_depth";
        let help = "Requests that wait for their turn";
        page.gauges(name, help, of_apps(&apps, |f| f.waiting))?;
        let name = "cloister_app_queue_wait_seconds";
        let help = "Waits for a turn, of the requests that had to wait";
        page.times(name, help, &WAIT_BOUNDS, of_apps(&apps, |f| &f.queue_wait))?;
        let name = "cloister_app_egress_requests";
        let help =
            "Requests that the component sent, by class of the status, or why there was none";
        page.counters(
            name,
            help,
            by_kind("outcome", &EGRESS, &apps, |f| &f.egress),
        )
    }

    fn guests(&self, page: &mut Page<'_>) -> fmt::Result {
        let apps = self.apps();
        let name = "cloister_app_cold_start_seconds";
        let help = "Waits for a VM, of the requests that found none";
        page.times(name, help, &WAIT_BOUNDS, of_apps(&apps, |f| &f.cold_start))?;
        let name = "cloister_app_vm_starts";
        let help = "VMs that got ready";
        page.counters(name, help, of_apps(&apps, |f| f.vm_starts))?;
        let name = "cloister_app_vm_losses";
        let help = "VMs that were lost after they were ready";
        page.counters(name, help, of_apps(&apps, |f| f.vm_losses))?;
        let name = "cloister_app_traps";
        let help = "Requests that the component failed or was ended in, by kind";
        page.counters(name, help, by_kind("kind", &TRAPS, &apps, |f| &f.traps))?;
        let name = "cloister_app_cpu_seconds";
        let help = "Processor time of requests in the guest, as the guest tells it";
        let seconds = |f: &Figures| f.cpu_ns as f64 / 1e9;
        page.counters(name, help, of_apps(&apps, seconds))?;
        let name = "cloister_app_request_memory_max_bytes";
        let help = "The most wasm memory that a request had, of the deployments that are there, as the guest tells it";
        page.gauges(name, help, of_apps(&apps, |f| f.memory_max))?;
        let name = "cloister_app_vm_resident_bytes";
        let help = "Memory that the VMs have resident";
        let resident = self.resident().into_iter();
        let resident =
            resident.map(|((tenant, app), bytes)| ([("tenant", tenant), ("app", app)], bytes));
        page.gauges(name, help, resident)
    }

    fn workers(&self, page: &mut Page<'_>) -> fmt::Result {
        let listed = self.data.apps.iter().filter(|app| app.listed);
        let listed: BTreeSet<_> = listed.map(|app| app.tenant.as_str()).collect();
        let workers = self.status.workers.iter();
        let workers: Vec<_> = workers
            .filter(|worker| listed.contains(worker.tenant.as_str()))
            .collect();
        let name = "cloister_worker_up";
        let help = "Whether the tenant's worker process runs";
        let up = workers.iter();
        page.gauges(
            name,
            help,
            up.map(|worker| {
                (
                    [("tenant", worker.tenant.as_str())],
                    u64::from(worker.pid.is_some()),
                )
            }),
        )?;
        let name = "cloister_worker_restarts";
        let help = "Times that the tenant's worker process was restarted";
        let restarts = workers.iter();
        page.counters(
            name,
            help,
            restarts.map(|worker| ([("tenant", worker.tenant.as_str())], worker.restarts)),
        )
    }

    fn node(&self, page: &mut Page<'_>) -> fmt::Result {
        let name = "cloister_build_info";
        let help = "The node's version, and that of its wasmtime";
        let versions = [
            ("version", self.about.version),
            ("wasmtime", self.about.wasmtime),
        ];
        page.gauges(name, help, [(versions, 1_u64)].into_iter())?;
        let states = [
            ("starting", VmState::Starting),
            ("ready", VmState::Ready),
            ("lost", VmState::Lost),
            ("stopped", VmState::Stopped),
        ];
        let vms = states.map(|(word, state)| {
            let vms = self.status.vms.iter().filter(|vm| vm.state == state);
            ([("state", word)], vms.count() as u64)
        });
        page.gauges("cloister_vms", "VMs, by state", vms.into_iter())?;
        let apps = self.data.apps.iter();
        let (listed, others): (Vec<_>, Vec<_>) = apps.partition(|app| app.listed);
        let apps = [("true", listed), ("false", others)];
        let name = "cloister_apps";
        let help = "Apps that are served, by whether they are listed by themselves here";
        let apps = apps.map(|(word, apps)| ([("listed", word)], apps.len() as u64));
        page.gauges(name, help, apps.into_iter())?;
        let node = &self.data.node;
        let name = "cloister_connections_open";
        page.gauge(
            name,
            "Connections of clients that are open",
            node.connections_open,
        )?;
        let name = "cloister_connections_accepted";
        let help = "Connections of clients that were taken";
        page.counter(name, help, node.connections_accepted)?;
        let name = "cloister_unrouted_requests";
        let help = "Requests that were answered without any app, by class of the status";
        // Whoever left was led to an app before.
        let unrouted = CLASSES.iter().zip(node.unrouted).take(CLASSES.len() - 1);
        page.counters(
            name,
            help,
            unrouted.map(|(class, n)| ([("class", *class)], n)),
        )?;
        let name = "cloister_log_dropped_bytes";
        let help = "Bytes of output of components that were dropped, as there were too many";
        page.counter(name, help, self.log_dropped_bytes)?;
        let Some(spans) = &self.about.spans else {
            return Ok(());
        };
        let name = "cloister_trace_spans";
        let help = "Spans of traces: taken by the collector, not taken by it, or without room in the queue";
        let spans = [
            ([("outcome", "sent")], count(&spans.sent)),
            ([("outcome", "failed")], count(&spans.failed)),
            ([("outcome", "dropped")], count(&spans.dropped)),
        ];
        page.counters(name, help, spans.into_iter())
    }

    fn process(&self, page: &mut Page<'_>) -> fmt::Result {
        let process = &self.process;
        let started = self.started.duration_since(SystemTime::UNIX_EPOCH);
        let started = started.map_or(0.0, |time| time.as_secs_f64());
        let name = "process_start_time_seconds";
        page.gauge(
            name,
            "When the daemon started, in seconds since 1970",
            started,
        )?;
        if let Some(seconds) = process.cpu_seconds {
            page.counter(
                "process_cpu_seconds",
                "Processor time of the daemon",
                seconds,
            )?;
        }
        let gauges = [
            (
                "process_resident_memory_bytes",
                "Memory that the daemon has resident",
                process.resident_bytes,
            ),
            (
                "process_open_fds",
                "Files that the daemon has open",
                process.open_fds,
            ),
            (
                "process_max_fds",
                "Files that the daemon may have open",
                process.max_fds,
            ),
        ];
        for (name, help, value) in gauges {
            if let Some(value) = value {
                page.gauge(name, help, value)?;
            }
        }
        Ok(())
    }
}

/// Labels of an app.
type OfApp<'a> = [(&'static str, &'a str); 2];

/// A figure of each app.
fn of_apps<'a, T>(
    apps: &[(&'a str, &'a str, &'a Figures)],
    figure: impl Fn(&'a Figures) -> T,
) -> impl Iterator<Item = (OfApp<'a>, T)> {
    let apps = apps.iter();
    apps.map(move |(tenant, app, figures)| ([("tenant", *tenant), ("app", *app)], figure(figures)))
}

/// The figures of each app that are told apart by a label.
fn by_kind<'a>(
    label: &'static str,
    kinds: &'static [&'static str],
    apps: &[(&'a str, &'a str, &'a Figures)],
    figures: impl Fn(&'a Figures) -> &'a [u64],
) -> impl Iterator<Item = ([(&'static str, &'a str); 3], u64)> {
    apps.iter().flat_map(move |(tenant, app, of)| {
        let each = kinds.iter().zip(figures(of));
        each.map(move |(kind, n)| ([("tenant", *tenant), ("app", *app), (label, *kind)], *n))
    })
}

/// A page that is being written.
struct Page<'p>(DescriptorEncoder<'p>);

impl Page<'_> {
    /// Writes the series of one metric.
    fn family<L: EncodeLabelSet, T>(
        &mut self,
        name: &str,
        help: &str,
        kind: MetricType,
        series: impl Iterator<Item = (L, T)>,
        write: impl Fn(&mut MetricEncoder<'_>, T) -> fmt::Result,
    ) -> fmt::Result {
        let mut encoder = self.0.encode_descriptor(name, help, None, kind)?;
        for (labels, value) in series {
            write(&mut encoder.encode_family(&labels)?, value)?;
        }
        Ok(())
    }

    /// Counters; `_total` is put behind the name.
    fn counters<L: EncodeLabelSet, T: EncodeCounterValue>(
        &mut self,
        name: &str,
        help: &str,
        series: impl Iterator<Item = (L, T)>,
    ) -> fmt::Result {
        self.family(name, help, MetricType::Counter, series, |encoder, value| {
            encoder.encode_counter::<NoLabelSet, _, f64>(&value, None)
        })
    }

    fn counter(&mut self, name: &str, help: &str, value: impl EncodeCounterValue) -> fmt::Result {
        let none: [(&str, &str); 0] = [];
        self.counters(name, help, [(none, value)].into_iter())
    }

    fn gauges<L: EncodeLabelSet, T: EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        series: impl Iterator<Item = (L, T)>,
    ) -> fmt::Result {
        self.family(name, help, MetricType::Gauge, series, |encoder, value| {
            encoder.encode_gauge(&value)
        })
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl EncodeGaugeValue) -> fmt::Result {
        let none: [(&str, &str); 0] = [];
        self.gauges(name, help, [(none, value)].into_iter())
    }

    /// Histograms in seconds, of times with bounds in microseconds.
    fn times<'a, L: EncodeLabelSet, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        bounds: &[u64],
        series: impl Iterator<Item = (L, &'a Times<N>)>,
    ) -> fmt::Result {
        let seconds = |us: u64| us as f64 / 1e6;
        let bounds = bounds.iter().map(|bound| seconds(*bound));
        let bounds: Vec<f64> = bounds.chain([f64::INFINITY]).collect();
        self.family(
            name,
            help,
            MetricType::Histogram,
            series,
            |encoder, times| {
                let buckets = bounds.iter().copied().zip(times.counts);
                let buckets: Vec<(f64, u64)> = buckets.collect();
                let count = times.counts.iter().sum();
                encoder.encode_histogram::<NoLabelSet>(seconds(times.sum_us), count, &buckets, None)
            },
        )
    }
}

#[cfg(test)]
mod tests;
