//! A scoring endpoint inside the process, for the demo and for tests.
//!
//! In: requests as an Azure ML online endpoint takes them. Out: fares from a fixed formula, the headers and error forms
//! of the real server, and faults on command. Invariant: the same row always gets the same fare, and while it is down
//! the port stays taken, so that a client meets a refused connection and not somebody else. Not here: any other model,
//! TLS.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicI64, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::http::{HeaderMap, Response, StatusCode, header};
use axum::routing::{get, post};
use serde_json::{Value as Json, json};
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinHandle;

/// Largest body taken, bytes: a batch of the largest size there is.
const BODY_MAX: usize = 64 << 20;
/// Connections waiting to be accepted; what the real server uses.
const BACKLOG: u32 = 2048;
const WEEKDAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

/// A running endpoint. Dropping it closes it.
#[derive(Debug)]
pub struct Endpoint {
    address: SocketAddr,
    shared: Arc<Shared>,
    port: Mutex<Port>,
}

#[derive(Debug)]
enum Port {
    Serving(JoinHandle<()>),
    /// Bound, not listening: connections are refused.
    Held(TcpSocket),
    Gone,
}

#[derive(Debug, Default)]
struct Shared {
    requests: AtomicU64,
    rows: AtomicU64,
    in_flight: AtomicI64,
    most_in_flight: AtomicI64,
    /// 0: as the model says
    status: AtomicU16,
    delay_ms: AtomicU64,
    /// requests at once before 429; 0: any
    capacity: AtomicI64,
    key: Mutex<Option<String>>,
}

impl Endpoint {
    /// Starts on a free port of the loopback address, inside a Tokio runtime.
    pub async fn start() -> std::io::Result<Endpoint> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        let port = Mutex::new(Port::Serving(serve(listener, shared.clone())));
        Ok(Endpoint { address, shared, port })
    }

    /// The scoring address.
    pub fn url(&self) -> String {
        format!("http://{}/score", self.address)
    }

    /// Score requests that came in so far, refused ones included.
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::Relaxed)
    }

    /// Rows scored so far.
    pub fn rows(&self) -> u64 {
        self.shared.rows.load(Ordering::Relaxed)
    }

    /// Most requests that were being served at once.
    pub fn most_in_flight(&self) -> i64 {
        self.shared.most_in_flight.load(Ordering::Relaxed)
    }

    /// Goes away: connections are refused until [`Endpoint::come_back`].
    pub async fn go_down(&self) -> std::io::Result<()> {
        let serving = std::mem::replace(&mut *self.port(), Port::Gone);
        if let Port::Serving(server) = serving {
            server.abort();
            // the listener is closed once the task is gone
            let _ = server.await;
        }
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(self.address)?;
        *self.port() = Port::Held(socket);
        Ok(())
    }

    /// Serves again on the same port.
    pub fn come_back(&self) -> std::io::Result<()> {
        let mut port = self.port();
        if let Port::Held(socket) = std::mem::replace(&mut *port, Port::Gone) {
            *port = Port::Serving(serve(socket.listen(BACKLOG)?, self.shared.clone()));
        }
        Ok(())
    }

    /// Answers every score request with this status; `None`: as the model says.
    pub fn set_status(&self, status: Option<u16>) {
        self.shared.status.store(status.unwrap_or(0), Ordering::Relaxed);
    }

    /// Waits so long before each answer.
    pub fn set_delay(&self, delay: Duration) {
        self.shared.delay_ms.store(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Answers 429 to more than this number of requests at once; `None`: any number.
    pub fn set_capacity(&self, requests: Option<u32>) {
        self.shared.capacity.store(requests.map_or(0, i64::from), Ordering::Relaxed);
    }

    /// Answers 401 to requests without this key; `None`: none is needed.
    pub fn set_key(&self, key: Option<&str>) {
        *self.shared.key.lock().unwrap_or_else(PoisonError::into_inner) = key.map(String::from);
    }

    fn port(&self) -> std::sync::MutexGuard<'_, Port> {
        self.port.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        if let Port::Serving(server) = &*self.port() {
            server.abort();
        }
    }
}

/// The fare of a ride, rounded to cents: a base, the way, the rush hours of working days, the passengers.
pub fn fare(weekday: &str, hour: i64, passengers: i64, distance: f64) -> f64 {
    let is_rush = (16..=19).contains(&hour) && !matches!(weekday, "Sat" | "Sun");
    let fare = 3.0 + 2.2 * distance + if is_rush { 1.0 } else { 0.0 } + 0.1 * passengers as f64;
    (fare * 100.0).round() / 100.0
}

fn serve(listener: TcpListener, shared: Arc<Shared>) -> JoinHandle<()> {
    let app = Router::new()
        .route("/", get(|| async { reply(StatusCode::OK, "text/html; charset=utf-8", "Healthy".into()) }))
        .route("/swagger.json", get(swagger))
        .route("/score", post(score))
        .fallback(|| async { error(StatusCode::NOT_FOUND, "The requested URL was not found on the server.") })
        .layer(axum::extract::DefaultBodyLimit::max(BODY_MAX))
        .with_state(shared);
    tokio::spawn(async move {
        let _ = axum::serve(listener, app).await;
    })
}

fn reply(status: StatusCode, content_type: &str, body: String) -> Response<Body> {
    let response = Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, content_type)
        // as the real server: every answer closes its connection, so going down leaves none behind
        .header(header::CONNECTION, "close")
        .header("x-ms-server-version", "forebay-demo")
        .body(Body::from(body));
    response.unwrap_or_default()
}

fn error(status: StatusCode, message: &str) -> Response<Body> {
    reply(status, "application/json", json!({ "message": message }).to_string())
}

fn run_failed(mut response: Response<Body>, failed: bool) -> Response<Body> {
    let value = if failed { "True" } else { "False" };
    response.headers_mut().insert("x-ms-run-function-failed", header::HeaderValue::from_static(value));
    response
}

async fn swagger(Query(query): Query<Vec<(String, String)>>) -> Response<Body> {
    match query.iter().find(|(name, _)| name == "version").map(|(_, version)| version.as_str()) {
        None | Some("2") => reply(StatusCode::OK, "application/json", document().to_string()),
        Some(other) => {
            error(StatusCode::NOT_FOUND, &format!("Swagger version [{other}] is not valid. Supported versions: [2]."))
        }
    }
}

/// What the real server generates for an array of text cells.
fn document() -> Json {
    json!({
        "swagger": "2.0",
        "info": { "title": "Taxi fares", "version": "1.0" },
        "paths": { "/score": { "post": {
            "operationId": "RunMLService",
            "parameters": [
                { "name": "serviceInputPayload", "in": "body", "schema": { "$ref": "#/definitions/ServiceInput" } }
            ],
            "responses": { "200": { "schema": { "$ref": "#/definitions/ServiceOutput" } } }
        } } },
        "definitions": {
            "ServiceInput": {
                "type": "object",
                "properties": { "data": {
                    "type": "array", "items": { "type": "array", "items": { "type": "string" } },
                    "format": "numpy.ndarray"
                } },
                "example": { "data": [["1", "Thu", "16", "1", "3.48"]] }
            },
            "ServiceOutput": {
                "type": "array", "items": { "type": "number", "format": "double" }, "example": [11.76],
                "format": "numpy.ndarray"
            }
        }
    })
}

/// Counts a request while it is being served.
struct Serving<'a>(&'a Shared);

impl Drop for Serving<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn score(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response<Body> {
    shared.requests.fetch_add(1, Ordering::Relaxed);
    let at_once = shared.in_flight.fetch_add(1, Ordering::Relaxed) + 1;
    let _serving = Serving(&shared);
    let capacity = shared.capacity.load(Ordering::Relaxed);
    if capacity > 0 && at_once > capacity {
        return error(StatusCode::TOO_MANY_REQUESTS, "too many requests at once");
    }
    shared.most_in_flight.fetch_max(at_once, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_millis(shared.delay_ms.load(Ordering::Relaxed))).await;
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let key = shared.key.lock().unwrap_or_else(PoisonError::into_inner).clone();
    if key.is_some_and(|key| header("authorization") != Some(format!("Bearer {key}").as_str())) {
        return error(StatusCode::UNAUTHORIZED, "bad or missing key");
    }
    if let Some(status) =
        Some(shared.status.load(Ordering::Relaxed)).filter(|s| *s != 0).and_then(|s| StatusCode::from_u16(s).ok())
    {
        return run_failed(error(status, &format!("asked for {}", status.as_u16())), status.is_server_error());
    }
    if !header("content-type").is_some_and(|t| t.starts_with("application/json")) {
        return error(StatusCode::UNSUPPORTED_MEDIA_TYPE, "Expects Content-Type to be application/json");
    }
    let Ok(Json::Object(body)) = serde_json::from_slice(&body) else {
        return error(StatusCode::BAD_REQUEST, "POST body should be a JSON dictionary.");
    };
    let Some(rows) = body.get("data") else {
        return error(StatusCode::BAD_REQUEST, "A value is not provided for the 'data' parameter.");
    };
    let fares: Option<Vec<f64>> =
        rows.as_array().filter(|rows| !rows.is_empty()).and_then(|rows| rows.iter().map(fare_of_row).collect());
    let mut response = match fares {
        Some(fares) => {
            shared.rows.fetch_add(fares.len() as u64, Ordering::Relaxed);
            run_failed(reply(StatusCode::OK, "application/json", json!(fares).to_string()), false)
        }
        // as the real server: one bad row fails them all, and the answer does not say which
        None => run_failed(
            error(StatusCode::INTERNAL_SERVER_ERROR, "An unexpected error occurred in scoring script."),
            true,
        ),
    };
    if let Some(id) = headers.get("x-ms-client-request-id") {
        response.headers_mut().insert("x-ms-client-request-id", id.clone());
        response.headers_mut().insert("x-ms-request-id", id.clone());
    }
    response
}

/// `["1", "Mon", "12", "1", "5.8"]`: vendor, weekday, hour of pickup, passengers, miles; numbers may also be numbers.
fn fare_of_row(row: &Json) -> Option<f64> {
    let text = |cell: &Json| cell.as_str().map(String::from).or_else(|| cell.as_number().map(ToString::to_string));
    let cells: Vec<String> = row.as_array()?.iter().map(text).collect::<Option<_>>()?;
    let [vendor, weekday, hour, passengers, distance] = cells.as_slice() else { return None };
    let whole = |text: &str| text.parse::<f64>().ok().filter(|n| n.fract() == 0.0).map(|n| n as i64);
    whole(vendor)?;
    let distance: f64 = distance.parse().ok().filter(|d: &f64| d.is_finite() && *d >= 0.0)?;
    WEEKDAYS
        .contains(&weekday.as_str())
        .then(|| whole(hour).zip(whole(passengers)))?
        .map(|(h, p)| fare(weekday, h, p, distance))
}
