//! The HTTP port for people and machines that look after the proxy.
//!
//! | path | answer |
//! | --- | --- |
//! | `/livez` | 200 as long as the process can answer |
//! | `/readyz` | 200, or 503 with one reason per line |
//! | `/metrics` | Prometheus' text format |
//! | `/topology` | JSON: term, roles, evidence, lag, connections |
//! | `/status.json` | JSON: all of the status page; see [`crate::status`] |
//! | `/` | the status page: one file with everything in it, fed by `/status.json` |
//! | `/suspect` | the reconciler's only, and the one that is POSTed to: see [`suspect`] |
//!
//! It changes nothing (at most something is looked at sooner) and has no authentication. It must answer when the rest is in
//! trouble, so everything about it is bounded: connections, the size of a request's head, and the time from accept to the last
//! byte of the answer. One connection serves one request, and a request's body is never read.

mod page;
pub mod suspect;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::metrics;
use crate::topology::suspicion;

/// The largest head of a request; a probe's is 100 bytes, a browser's 1 KiB. hyper's own least is 8 KiB.
const HEAD_BYTES_MAX: usize = 8 << 10;
const TEXT: &str = "text/plain; charset=utf-8";
const PATHS: &str = "/livez /readyz /metrics /topology /status.json /";

/// Whether clients should be sent here, and if not, why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readiness {
    /// Listening, and every required cluster has a proven primary.
    pub ready: bool,
    /// What is missing, one line each, for a person.
    pub reasons: Vec<String>,
    /// What else a person should know, one line each: it does not make the proxy unready.
    pub notes: Vec<String>,
}

/// Where the answers come from. The functions are called once per request; they must not block. What takes its time with
/// many servers (`topology`, `status`) is called on a thread of its own, so that no probe waits for it.
#[derive(Clone)]
pub struct AdminState {
    /// For `/readyz`.
    pub ready: Arc<dyn Fn() -> Readiness + Send + Sync>,
    /// For `/topology`.
    pub topology: Arc<dyn Fn() -> Value + Send + Sync>,
    /// For `/status.json`.
    pub status: Arc<dyn Fn() -> Value + Send + Sync>,
    /// For `/metrics`.
    pub prometheus: PrometheusHandle,
    /// Called before each `/metrics`: brings gauges up to date.
    pub before_scrape: Arc<dyn Fn() + Send + Sync>,
    /// For `/suspect`, where somebody listens.
    pub suspect: Option<suspect::Listener>,
}

/// Bounds of the port.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections served at the same time; further ones wait to be accepted.
    pub connections_max: usize,
    /// From accept to the end of a request's head.
    pub head_timeout: Duration,
    /// From accept to the last byte of the answer.
    pub total_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections_max: 64, head_timeout: Duration::from_secs(5), total_timeout: Duration::from_secs(15) }
    }
}

/// Serves until `shutdown`, then ends what is being answered, for [`Limits::total_timeout`] at most. To answer `/readyz`
/// with 503 while the proxy drains, cancel it after everything else.
pub async fn serve(listener: TcpListener, state: AdminState, shutdown: CancellationToken) {
    serve_within(listener, state, Limits::default(), shutdown).await;
}

/// [`serve`] within other limits.
pub async fn serve_within(listener: TcpListener, state: AdminState, limits: Limits, shutdown: CancellationToken) {
    let room = Arc::new(Semaphore::new(limits.connections_max));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let accept = async {
            let place = Arc::clone(&room).acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = accept => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let state = state.clone();
                connections.spawn(async move {
                    serve_connection(stream, state, limits).await;
                    drop(place);
                });
            }
            Err(error) => {
                // Out of descriptors, most likely; at once again would only burn the processor.
                warn!(%error, "admin port cannot accept");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    connections.join_all().await;
}

async fn serve_connection(stream: TcpStream, state: AdminState, limits: Limits) {
    let answer = service_fn(move |request| {
        let state = state.clone();
        async move { Ok::<_, Infallible>(answer(&request, &state).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(false)
        .header_read_timeout(limits.head_timeout)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), answer);
    match tokio::time::timeout(limits.total_timeout, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "admin connection ended early"),
        Err(_) => debug!("admin connection took too long"),
    }
}

async fn answer(request: &Request<Incoming>, state: &AdminState) -> Response<Full<Bytes>> {
    if let Some(listener) = &state.suspect
        && request.uri().path() == suspicion::PATH
    {
        return suspect::answer(request, listener);
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refusal = response(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD\n");
        refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refusal;
    }
    match request.uri().path() {
        "/livez" => response(StatusCode::OK, TEXT, "live\n"),
        "/readyz" => readyz(&(state.ready)()),
        "/metrics" => {
            (state.before_scrape)();
            response(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", metrics::render(&state.prometheus))
        }
        "/topology" => json(Arc::clone(&state.topology)).await,
        "/status.json" => json(Arc::clone(&state.status)).await,
        "/" => page::response(),
        _ => response(StatusCode::NOT_FOUND, TEXT, format!("there is nothing here; paths: {PATHS}\n")),
    }
}

async fn json(value: Arc<dyn Fn() -> Value + Send + Sync>) -> Response<Full<Bytes>> {
    match tokio::task::spawn_blocking(move || format!("{:#}\n", value())).await {
        Ok(text) => response(StatusCode::OK, "application/json", text),
        Err(_) => response(StatusCode::INTERNAL_SERVER_ERROR, TEXT, "the answer could not be made\n"),
    }
}

fn readyz(readiness: &Readiness) -> Response<Full<Bytes>> {
    let (code, word) =
        if readiness.ready { (StatusCode::OK, "ready") } else { (StatusCode::SERVICE_UNAVAILABLE, "not ready") };
    let mut text = format!("{word}\n");
    for line in readiness.reasons.iter().chain(&readiness.notes) {
        text.push_str(line);
        text.push('\n');
    }
    response(code, TEXT, text)
}

fn response(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = [
        (CONTENT_TYPE, kind),
        (CACHE_CONTROL, "no-store"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    ];
    for (name, value) in headers {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
