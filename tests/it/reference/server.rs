//! An HTTP server of reference data whose answer the test sets; it counts what it was asked.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

/// A server whose answer the test sets.
#[derive(Clone, Default)]
pub struct Served {
    answer: Arc<Mutex<Answer>>,
}

#[derive(Clone, Default)]
pub struct Answer {
    pub status: u16,
    pub body: String,
    pub etag: Option<&'static str>,
    pub redirect: Option<String>,
    /// Never answers.
    pub hangs: bool,
    pub asked: usize,
    pub not_modified: usize,
    pub keys: Vec<String>,
    /// Requests that told the address they came from.
    pub referred: usize,
}

async fn answer(State(served): State<Served>, headers: HeaderMap) -> Response {
    let answer = {
        let mut answer = served.answer.lock().unwrap();
        answer.asked += 1;
        answer.referred += usize::from(headers.contains_key(header::REFERER));
        answer.keys.extend(headers.get("x-api-key").map(|key| key.to_str().unwrap().to_owned()));
        answer.clone()
    };
    if answer.hangs {
        std::future::pending::<()>().await;
    }
    if let Some(to) = answer.redirect {
        return (StatusCode::FOUND, [(header::LOCATION, to)]).into_response();
    }
    let asked_by = headers.get(header::IF_NONE_MATCH).and_then(|tag| tag.to_str().ok());
    if answer.etag.is_some() && asked_by == answer.etag {
        served.answer.lock().unwrap().not_modified += 1;
        return StatusCode::NOT_MODIFIED.into_response();
    }
    let status = StatusCode::from_u16(answer.status).unwrap();
    match answer.etag {
        Some(etag) => (status, [(header::ETAG, etag)], answer.body).into_response(),
        None => (status, answer.body).into_response(),
    }
}

impl Served {
    pub fn start(
        runtime: &tokio::runtime::Runtime,
        first: (u16, &str),
    ) -> (Served, SocketAddr, tokio::task::JoinHandle<()>) {
        let served = Served::default();
        served.set(first.0, first.1);
        let app = axum::Router::new().route("/zones", get(answer)).with_state(served.clone());
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let task = runtime.spawn(async move { axum::serve(listener, app).await.unwrap() });
        (served, address, task)
    }

    pub fn with<T>(&self, f: impl FnOnce(&mut Answer) -> T) -> T {
        f(&mut self.answer.lock().unwrap())
    }

    pub fn set(&self, status: u16, body: &str) {
        self.with(|a| {
            (a.status, a.body, a.etag, a.redirect, a.hangs) = (status, body.to_owned(), None, None, false);
        });
    }
}
