//! Sends spans to a collector: OTLP over HTTP, in batches, from a task of its own.
//!
//! The queue is bounded: spans that have no room are dropped and counted, and a collector that does not answer holds up
//! nobody. Encoding and retries are those of `opentelemetry-otlp`, over the HTTP client that the node has anyway.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind as OtelKind, Status, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{
    ExporterBuildError, SpanExporter, WithExportConfig as _, WithHttpConfig as _,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use platform_control::metrics::SpanCounters;
use platform_data::trace::{Span, SpanKind, SpanSink, Value};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Spans that wait to be sent.
const QUEUE: usize = 8192;

/// Spans in one request to the collector.
const BATCH: usize = 512;

/// How long a span waits for others to be sent with.
const GATHER: Duration = Duration::from_secs(1);

/// Time that the collector has for a batch, with all that has to be tried again.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Time that the node has for the last spans when it stops.
const STOP: Duration = Duration::from_secs(2);

/// Longest answer of a collector, in bytes.
const MAX_ANSWER: usize = 64 << 10;

/// How long failures are only counted after one was told of.
const QUIET: Duration = Duration::from_secs(60);

/// Where spans are taken.
#[derive(Debug)]
pub(crate) struct Sink {
    queue: mpsc::Sender<Span>,
    counters: Arc<SpanCounters>,
}

impl SpanSink for Sink {
    fn span(&self, span: Span) {
        if self.queue.try_send(span).is_err() {
            self.counters.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The task that sends.
#[derive(Debug)]
pub(crate) struct Exporting {
    stop: tokio::sync::oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Exporting {
    /// Sends what waits, as far as the collector takes it in time, and ends.
    pub(crate) async fn stop(mut self) {
        // A task that has ended needs no telling.
        let _ = self.stop.send(());
        if tokio::time::timeout(STOP, &mut self.task).await.is_err() {
            self.task.abort();
            tracing::warn!("the last spans were not sent: the collector does not answer");
        }
    }
}

/// Starts to send spans to the collector at `endpoint`, the base URL of its OTLP receiver. To be called within the runtime.
///
/// # Errors
/// When the environment (`OTEL_EXPORTER_OTLP_…`) has what cannot be used.
pub(crate) fn start(
    endpoint: &Uri,
    version: &'static str,
    counters: &Arc<SpanCounters>,
) -> Result<(Sink, Exporting), ExporterBuildError> {
    let mut exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(Hyper::new())
        .with_endpoint(traces_url(endpoint))
        .with_timeout(TIMEOUT)
        .build()?;
    let resource = Resource::builder()
        .with_service_name("cloister")
        .with_attribute(KeyValue::new("service.version", version))
        .build();
    exporter.set_resource(&resource);
    let (queue, spans) = mpsc::channel(QUEUE);
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let exporting = Task {
        exporter,
        scope: InstrumentationScope::builder("cloister")
            .with_version(version)
            .build(),
        counters: Arc::clone(counters),
        told: None,
    };
    let task = tokio::spawn(exporting.run(spans, stopped));
    let counters = Arc::clone(counters);
    Ok((Sink { queue, counters }, Exporting { stop, task }))
}

/// The URL for traces of an OTLP receiver, as the specification builds it from the base.
fn traces_url(endpoint: &Uri) -> String {
    let base = endpoint.to_string();
    let base = base.trim_end_matches('/');
    if base.ends_with("/v1/traces") {
        base.to_owned()
    } else {
        format!("{base}/v1/traces")
    }
}

struct Task {
    exporter: SpanExporter,
    scope: InstrumentationScope,
    counters: Arc<SpanCounters>,
    /// When a failure was last told of.
    told: Option<Instant>,
}

impl Task {
    async fn run(
        mut self,
        mut spans: mpsc::Receiver<Span>,
        mut stopped: tokio::sync::oneshot::Receiver<()>,
    ) {
        let mut batch = Vec::with_capacity(BATCH);
        let mut stopping = false;
        loop {
            tokio::select! {
                count = spans.recv_many(&mut batch, BATCH) => {
                    if count == 0 {
                        return;
                    }
                }
                _ = &mut stopped, if !stopping => {
                    stopping = true;
                    spans.close();
                    continue;
                }
            }
            let more = async {
                while batch.len() < BATCH {
                    let room = BATCH - batch.len();
                    if spans.recv_many(&mut batch, room).await == 0 {
                        return;
                    }
                }
            };
            // What came until then is in the batch in any case.
            let _ = tokio::time::timeout(GATHER, more).await;
            self.send(&mut batch).await;
        }
    }

    async fn send(&mut self, batch: &mut Vec<Span>) {
        let count = batch.len() as u64;
        let spans = batch
            .drain(..)
            .map(|span| data(span, &self.scope))
            .collect();
        match self.exporter.export(spans).await {
            Ok(()) => {
                self.counters.sent.fetch_add(count, Ordering::Relaxed);
                self.told = None;
            }
            Err(error) => {
                self.counters.failed.fetch_add(count, Ordering::Relaxed);
                if self.told.is_none_or(|told| told.elapsed() >= QUIET) {
                    self.told = Some(Instant::now());
                    tracing::warn!(%error, spans = count, "the collector does not take spans");
                }
            }
        }
    }
}

/// A span as the exporter takes it.
fn data(span: Span, scope: &InstrumentationScope) -> SpanData {
    // Checked where it was read; what this crate does not take is left out.
    let state = span.state.parse::<TraceState>().unwrap_or_default();
    let attribute = |(name, value)| match value {
        Value::Text(text) => KeyValue::new(name, text),
        Value::Number(number) => KeyValue::new(name, number),
    };
    SpanData {
        span_context: SpanContext::new(
            TraceId::from_bytes(span.trace_id.to_be_bytes()),
            SpanId::from_bytes(span.span_id.to_be_bytes()),
            TraceFlags::SAMPLED,
            false,
            state,
        ),
        parent_span_id: SpanId::from_bytes(span.parent_id.to_be_bytes()),
        parent_span_is_remote: span.parent_is_remote,
        span_kind: match span.kind {
            SpanKind::Server => OtelKind::Server,
            SpanKind::Client => OtelKind::Client,
            SpanKind::Internal => OtelKind::Internal,
        },
        name: span.name,
        start_time: span.start,
        end_time: span.end,
        attributes: span.attributes.into_iter().map(attribute).collect(),
        dropped_attributes_count: 0,
        events: Default::default(),
        links: Default::default(),
        status: span.error.map_or(Status::Unset, Status::error),
        instrumentation_scope: scope.clone(),
    }
}

/// The node's HTTP client, as the exporter uses it.
#[derive(Debug)]
struct Hyper(Client<HttpsConnector<HttpConnector>, Full<Bytes>>);

impl Hyper {
    fn new() -> Self {
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_webpki_roots()
            .https_or_http()
            .enable_http1()
            .build();
        Self(Client::builder(TokioExecutor::new()).build(connector))
    }
}

#[async_trait]
impl HttpClient for Hyper {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let exchange = async {
            let response = self.0.request(request.map(Full::new)).await?;
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, MAX_ANSWER).collect().await?.to_bytes();
            Ok(Response::from_parts(parts, body))
        };
        tokio::time::timeout(TIMEOUT, exchange).await?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_of_traces() {
        for (base, url) in [
            ("http://c:4318", "http://c:4318/v1/traces"),
            ("http://c:4318/", "http://c:4318/v1/traces"),
            ("https://c/otlp", "https://c/otlp/v1/traces"),
            ("http://c/v1/traces", "http://c/v1/traces"),
        ] {
            assert_eq!(traces_url(&base.parse().unwrap()), url);
        }
    }

    #[tokio::test]
    async fn a_collector_that_is_not_there_holds_up_nobody() {
        let counters = Arc::new(SpanCounters::default());
        let nobody = "http://127.0.0.1:1".parse().unwrap();
        let (sink, exporting) = start(&nobody, "1", &counters).unwrap();
        let began = Instant::now();
        let now = std::time::SystemTime::now();
        for n in 0..QUEUE as u64 + 1000 {
            sink.span(Span {
                trace_id: 1,
                span_id: n + 1,
                parent_id: 0,
                parent_is_remote: false,
                state: String::new(),
                kind: SpanKind::Internal,
                name: "x".into(),
                start: now,
                end: now,
                attributes: Vec::new(),
                error: None,
            });
        }
        assert!(began.elapsed() < Duration::from_secs(2));
        assert!(counters.dropped.load(Ordering::Relaxed) > 0);
        while counters.failed.load(Ordering::Relaxed) == 0 {
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "no batch has failed"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let stopping = Instant::now();
        exporting.stop().await;
        assert!(stopping.elapsed() < STOP * 2);
        assert_eq!(counters.sent.load(Ordering::Relaxed), 0);
    }
}
