//! The page as Prometheus reads it, and as the documentation has it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use platform_data::metrics::{AppMetrics, NodeFigures};
use platform_model::{DeploymentId, VmStatus, WorkerStatus};

use super::*;
use crate::metrics::SpanCounters;

const DOCUMENTATION: &str = include_str!("../../../../../deploy/observability.md");
const DASHBOARD: &str = include_str!("../../../../../deploy/grafana-dashboard.json");

fn figures(requests: u64) -> Figures {
    let mut figures = Figures {
        requests: [requests, 0, 0, 1, 0],
        cpu_ns: 1_500_000_000,
        in_flight: 2,
        memory_max: 65_536,
        ..Figures::default()
    };
    figures.duration.counts[0] = requests;
    figures.duration.counts[18] = 1;
    figures.duration.sum_us = 61_000_000;
    figures
}

fn app(tenant: &str, app: &str, listed: bool) -> AppMetrics {
    AppMetrics {
        tenant: tenant.parse().unwrap(),
        app: app.parse().unwrap(),
        listed,
        total: figures(5),
        deployments: vec![(DeploymentId(1), figures(5))],
    }
}

fn vm(tenant: &str, app: &str, state: VmState) -> VmStatus {
    VmStatus {
        tenant: tenant.parse().unwrap(),
        app: app.parse().unwrap(),
        deployment: DeploymentId(1),
        state,
        isolation: platform_model::Isolation::default(),
        resets: 0,
        requests: 0,
        traps: 0,
        restores: 0,
        exits: 0,
        resident_bytes: 1000,
    }
}

fn read() -> Read {
    let spans = SpanCounters::default();
    spans.sent.store(7, Ordering::Relaxed);
    let worker = |tenant: &str, pid| WorkerStatus {
        tenant: tenant.parse().unwrap(),
        pid,
        restarts: 3,
    };
    Read {
        data: DataMetrics {
            apps: vec![
                app("acme", "shop", true),
                app("red", "x", false),
                app("red", "y", false),
            ],
            unlisted: figures(9),
            node: NodeFigures {
                connections_open: 1,
                connections_accepted: 2,
                unrouted: [0, 0, 4, 0, 0],
            },
        },
        status: DataStatus {
            vms: vec![
                vm("acme", "shop", VmState::Ready),
                vm("acme", "shop", VmState::Ready),
                vm("red", "x", VmState::Lost),
                vm("red", "y", VmState::Ready),
            ],
            workers: vec![worker("acme", Some(1)), worker("red", None)],
        },
        log_dropped_bytes: 11,
        process: Process {
            cpu_seconds: Some(1.5),
            resident_bytes: Some(1),
            open_fds: Some(2),
            max_fds: Some(3),
        },
        started: SystemTime::UNIX_EPOCH + Duration::from_secs(5),
        about: About {
            requests_per_second: 0,
            version: "1.2.3",
            wasmtime: "48",
            started: Instant::now(),
            spans: Some(Arc::new(spans)),
        },
    }
}

#[test]
fn the_numbers_are_in_their_places() {
    let page = read().page();
    for line in [
        r#"cloister_app_requests_total{tenant="acme",app="shop",class="2xx"} 5"#,
        r#"cloister_app_requests_total{tenant="_other",app="_other",class="2xx"} 9"#,
        r#"cloister_app_request_duration_seconds_bucket{tenant="acme",app="shop",le="0.0001"} 5"#,
        r#"cloister_app_request_duration_seconds_bucket{tenant="acme",app="shop",le="60"} 5"#,
        r#"cloister_app_request_duration_seconds_bucket{tenant="acme",app="shop",le="+Inf"} 6"#,
        r#"cloister_app_request_duration_seconds_sum{tenant="acme",app="shop"} 61.0"#,
        r#"cloister_app_request_duration_seconds_count{tenant="acme",app="shop"} 6"#,
        r#"cloister_app_cpu_seconds_total{tenant="acme",app="shop"} 1.5"#,
        r#"cloister_app_vm_resident_bytes{tenant="acme",app="shop"} 2000"#,
        r#"cloister_app_vm_resident_bytes{tenant="_other",app="_other"} 2000"#,
        r#"cloister_worker_restarts_total{tenant="acme"} 3"#,
        r#"cloister_vms{state="ready"} 3"#,
        r#"cloister_apps{listed="false"} 2"#,
        r#"cloister_unrouted_requests_total{class="4xx"} 4"#,
        "cloister_log_dropped_bytes_total 11",
        r#"cloister_trace_spans_total{outcome="sent"} 7"#,
        "process_start_time_seconds 5.0",
    ] {
        assert!(
            page.lines().any(|found| found == line),
            "no {line} in\n{page}"
        );
    }
    assert!(
        !page.contains("tenant=\"red\""),
        "what is not listed has no name here"
    );
}

#[test]
fn what_is_not_there_is_not_shown() {
    let mut read = read();
    read.data = DataMetrics::default();
    read.status = DataStatus::default();
    read.about.spans = None;
    let page = read.page();
    assert!(!page.contains("tenant="), "{page}");
    assert!(!page.contains("cloister_trace_spans"), "{page}");
}

/// The metrics of a page as rows of a table: name, type, labels, help.
fn rows(page: &str) -> Vec<String> {
    let word = |line: &str, n: usize| line.split(' ').nth(n).unwrap().to_owned();
    let mut rows = Vec::new();
    let lines: Vec<&str> = page.lines().collect();
    for pair in lines.windows(2) {
        let [help, kind] = pair else { continue };
        if !help.starts_with("# HELP ") {
            continue;
        }
        let (name, kind) = (word(help, 2), word(kind, 3));
        let text = help.splitn(4, ' ').nth(3).unwrap().trim_end_matches('.');
        let of = |line: &&&str| {
            let rest = line.strip_prefix(name.as_str());
            rest.is_some_and(|rest| {
                rest.starts_with(['{', ' ', '_']) && !rest.starts_with("_total")
            })
        };
        let mut labels = BTreeSet::new();
        for line in lines.iter().filter(of) {
            let set = line
                .split_once('{')
                .map_or("", |(_, rest)| rest.split_once('}').unwrap().0);
            let names = set
                .split(',')
                .filter_map(|label| Some(label.split_once('=')?.0));
            labels.extend(
                names
                    .filter(|name| *name != "le")
                    .map(|name| format!("`{name}`")),
            );
        }
        let labels: Vec<_> = labels.into_iter().collect();
        rows.push(format!(
            "| `{name}` | {kind} | {} | {text} |",
            labels.join(", ")
        ));
    }
    rows
}

#[test]
fn the_documentation_has_each_metric_and_no_other() {
    let rows = rows(&read().page());
    assert!(rows.len() > 25, "{rows:#?}");
    let documented: Vec<&str> = DOCUMENTATION
        .lines()
        .filter(|line| line.starts_with("| `cloister_") || line.starts_with("| `process_"))
        .collect();
    assert_eq!(
        documented,
        rows,
        "deploy/observability.md is to have\n{}",
        rows.join("\n")
    );
}

#[test]
fn the_dashboard_asks_for_metrics_that_are_there() {
    let page = read().page();
    let named = regex::Regex::new(r"\b(?:cloister|process)_[a-z_]+").unwrap();
    let names: BTreeSet<&str> = named
        .find_iter(DASHBOARD)
        .map(|found| found.as_str())
        .collect();
    assert!(names.len() > 15, "{names:?}");
    for name in names {
        let there = page.lines().any(|line| {
            line.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with(['{', ' ']))
        });
        assert!(there, "no {name}");
    }
    assert!(serde_json::from_str::<serde_json::Value>(DASHBOARD).is_ok());
}
