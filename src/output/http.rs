//! Rows to an HTTP endpoint, several in a request.
//!
//! In: batches of rows. Out: [`Delivery`]. Invariant: a row is confirmed when the request that held it was answered by
//! a code of success; of several rows that are refused together, the one at fault is found by halving, and it is
//! rejected only after others were taken. An attempt of which nothing is taken ends after a bounded number of requests.
//! Not here: bodies (`request`, `body`), what a code means (`answer`).

mod answer;
mod request;
mod settings;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, DATE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Response, redirect};
use tokio::time::Instant;

use super::body::{Encoded, Piece, pieces};
use super::progress::Progress;
use super::{Delivering, Delivery, Output, OutputStats, RowIds};
use crate::backoff::{Backoff, Retry};
use crate::batch::Rows;
use crate::http::{self, ClientSettings, Scrub, http_date, key_header, retry_after};
use crate::time::{Clock, task_now};
use answer::{AnswerClass, classify};
use request::{body, content_type, idempotency_key};
use settings::GivenHeader;

pub use settings::HttpOutputConfig;
pub(super) use settings::read;

/// A link that is down is noticed after this long.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How much of an answer is read: enough to say what is wrong, and to use the connection again.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// How much of it a message shows, characters.
const SHOWN_MAX: usize = 300;
/// Where every row of a batch is refused, the address or the body is more likely wrong than all of them. So often the
/// batch is tried, some minutes in all; then each of its rows is sent alone, and those that are refused are dead
/// letters.
const ALL_REFUSED_MAX: u32 = 10;
/// Rows refused alone, while none was taken, that show that not one row is at fault: more than a device sends badly in
/// a row, and few enough to leave a receiver in peace. Halving down to them takes log2(rows) and twice as many
/// requests.
const ALONE_MAX: usize = 8;

#[derive(Debug)]
struct HttpOutput {
    config: HttpOutputConfig,
    client: Client,
    progress: Progress,
    retry: Retry,
    /// No attempt before this.
    not_before: Option<Instant>,
    /// Fewer than the job says, since the receiver found a request too large.
    rows_max: usize,
    /// The last batch was taken, at least in part.
    works: bool,
    trial: BatchTrial,
    /// Of the batches of other consumers that are not through, by consumer.
    others: HashMap<String, BatchTrial>,
}

/// What the attempts at a batch have shown.
#[derive(Clone, Copy, Debug, Default)]
struct BatchTrial {
    /// A row of it was taken.
    has_taken: bool,
    /// Attempts that ended with all its rows refused.
    all_refused: u32,
}

/// Why an attempt came to nothing.
struct Again {
    reason: String,
    /// The receiver asked for a pause.
    asked: Option<Duration>,
    /// A request left, and there is no answer to it.
    is_unsure: bool,
}

impl From<String> for Again {
    fn from(reason: String) -> Again {
        Again { reason, asked: None, is_unsure: false }
    }
}

impl HttpOutput {
    fn new(config: HttpOutputConfig, stats: Arc<OutputStats>) -> Result<HttpOutput, String> {
        let settings = ClientSettings {
            connect_timeout: CONNECT_TIMEOUT.min(config.timeout),
            idle_connections: 1,
            tls: &config.tls,
            is_plain: config.url.scheme() == "http",
            redirects: redirect::Policy::none(),
        };
        Ok(HttpOutput {
            client: http::client(settings).map_err(|e| e.to_string())?,
            progress: Progress::counted(stats),
            retry: Retry::new(Backoff::ENDPOINT),
            not_before: None,
            rows_max: config.batch.rows,
            works: false,
            trial: BatchTrial::default(),
            others: HashMap::new(),
            config,
        })
    }

    async fn hand_over(&mut self, rows: &Rows, ids: RowIds<'_>) -> Delivery {
        self.progress.begin(rows, ids);
        let trial = self.others.remove(ids.consumer);
        // what was learned of a batch that was given up says nothing of the next
        self.trial = trial.filter(|_| !self.progress.is_new()).unwrap_or_default();
        if let Some(at) = self.not_before {
            tokio::time::sleep_until(at).await;
        }
        match self.attempt(rows, ids).await {
            Ok(()) => {
                self.retry.succeeded();
                self.not_before = None;
                self.works = self.trial.has_taken;
                self.progress.finish()
            }
            Err(Again { reason, asked, is_unsure }) => {
                self.not_before = Some(task_now() + self.retry.failed_and_asked(asked));
                self.others.insert(ids.consumer.to_owned(), self.trial);
                if is_unsure {
                    self.progress.touch();
                }
                Delivery::try_again(reason).with_untouched(self.progress.is_untouched())
            }
        }
    }

    /// Sends all open rows, and decides about those that were refused alone. Ends early where nothing shows that any
    /// row is taken, but in the last attempt.
    async fn attempt(&mut self, rows: &Rows, ids: RowIds<'_>) -> Result<(), Again> {
        let headers = self.headers().await?;
        let mut open: Vec<Piece> = self.open(rows, ids);
        open.reverse();
        let is_last = self.trial.all_refused == ALL_REFUSED_MAX;
        // smaller where a request was too large; that is kept once rows were taken
        let mut rows_max = self.rows_max;
        let mut refused: Vec<(usize, String)> = Vec::new();
        // of these, refused before any row was taken
        let mut early = 0;
        while (self.trial.has_taken || is_last || refused.len() < ALONE_MAX)
            && let Some(mut piece) = open.pop()
        {
            let most = if is_last { 1 } else { rows_max };
            if piece.len() > most {
                open.push(piece.split_off(most));
            }
            let had_taken = self.trial.has_taken;
            let Some((class, why)) = self.ask(&piece, &headers).await? else {
                self.rows_max = rows_max;
                early = if had_taken { early } else { refused.len() };
                continue;
            };
            match piece.as_slice() {
                [alone] => refused.push((alone.row, why)),
                several => {
                    let half = several.len().div_ceil(2);
                    if class == AnswerClass::TooLarge {
                        rows_max = half;
                    }
                    let second = piece.split_off(half);
                    open.extend([second, piece]);
                }
            }
        }
        let early: HashSet<usize> = refused.iter().take(early).map(|(row, _)| *row).collect();
        for row in self.open(rows, ids).into_iter().flatten().filter(|row| early.contains(&row.row)) {
            // the receiver may have been repaired in between
            let place = row.row;
            if self.ask(&[row], &headers).await?.is_none() {
                refused.retain(|(row, _)| *row != place);
            }
        }
        self.judge(refused, rows.batch.len(), open.is_empty())
    }

    /// Sends rows in one request. `None`: they are taken; else why they are not.
    async fn ask(&mut self, piece: &[Encoded], headers: &HeaderMap) -> Result<Option<(AnswerClass, String)>, Again> {
        let answer = self.send(piece, headers).await?;
        let why = answer.reason(self);
        match classify(answer.code, &self.config.success) {
            AnswerClass::Taken => {
                self.trial.has_taken = true;
                piece.iter().for_each(|row| self.progress.confirm(row.row));
                Ok(None)
            }
            AnswerClass::Again => Err(Again { asked: answer.asked, ..why.into() }),
            AnswerClass::Pause(remedy) => Err(Again { asked: answer.asked, ..format!("{why}: {remedy}").into() }),
            class => Ok(Some((class, why))),
        }
    }

    /// Rejects the rows that were refused, unless nothing shows that others would be taken. `were_all_sent`: else it is
    /// known of the first rows only.
    fn judge(&mut self, refused: Vec<(usize, String)>, all: usize, were_all_sent: bool) -> Result<(), Again> {
        let Some((_, why)) = refused.first() else { return Ok(()) };
        let others_are_taken = self.trial.has_taken || (self.works && all == 1);
        if !others_are_taken && self.trial.all_refused < ALL_REFUSED_MAX {
            self.trial.all_refused += 1;
            let what = match were_all_sent {
                true => "every row is refused".to_owned(),
                false => format!("no row is taken and {} are refused, each alone", refused.len()),
            };
            return Err(format!("{why}; {what}: check `url`, `body` and what the receiver expects").into());
        }
        for (row, why) in refused {
            self.progress.reject(row, why);
        }
        Ok(())
    }

    /// The open rows as they are to be sent; those that are too large are rejected.
    fn open(&mut self, rows: &Rows, ids: RowIds<'_>) -> Vec<Piece> {
        let mut encoded: Vec<Encoded> = Vec::new();
        let mut from = 0;
        while let Some(row) = self.progress.next_open(from) {
            from = row + 1;
            match Encoded::new(rows, row, &self.config.told, ids, self.config.batch.bytes) {
                Ok(row) => encoded.push(row),
                Err(why) => self.progress.reject(row, why),
            }
        }
        pieces(encoded, self.rows_max, self.config.batch.bytes)
    }

    /// The headers that all requests have; secrets are read now, so that a changed one is taken.
    async fn headers(&self) -> Result<HeaderMap, Again> {
        let (written, key, name) =
            (self.config.headers.clone(), self.config.key.clone(), self.config.key_header.clone());
        let reading = tokio::task::spawn_blocking(move || {
            let mut headers: Vec<(HeaderName, HeaderValue)> = Vec::new();
            for (name, value) in written {
                headers.push(match value {
                    GivenHeader::Text(text) => (name, text),
                    GivenHeader::Secret(secret) => key_header(&secret, Some(name.as_str()))?,
                });
            }
            headers.extend(key.map(|key| key_header(&key, name.as_deref())).transpose()?);
            Ok::<_, String>(headers)
        });
        let read = reading.await.map_err(|e| e.to_string())??;
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type(self.config.body)));
        if self.config.gzip {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        for (name, value) in read {
            headers.insert(name, value);
        }
        Ok(headers)
    }

    async fn send(&self, piece: &[Encoded], headers: &HeaderMap) -> Result<HttpAnswer, Again> {
        let call = self.client.request(self.config.method.clone(), self.config.url.clone()).headers(headers.clone());
        let call = call.header("idempotency-key", idempotency_key(piece)).timeout(self.config.timeout);
        let mut scrub = Scrub::of(&self.config.url);
        let secrets = headers.values().filter(|value| value.is_sensitive()).filter_map(|value| value.to_str().ok());
        secrets.for_each(|secret| scrub.add(secret));
        let away = |error: reqwest::Error| {
            let is_unsure = !error.is_connect();
            let reason = match error.is_timeout() && is_unsure {
                true => format!("{self} gave no answer within {:?}", self.config.timeout),
                false => scrub.text(format!("{self}: {}", http::problem(error, &self.config.tls))),
            };
            Again { is_unsure, ..reason.into() }
        };
        let body = body(&self.config, piece).map_err(|e| e.to_string())?;
        let response = call.body(body).send().await.map_err(away)?;
        let (code, asked) = (response.status().as_u16(), asked(&response));
        // an answer that breaks off or is long says enough by its code
        let mut text = http::read_start(response, ANSWER_BYTES_MAX).await.unwrap_or_default();
        scrub.hide(&mut text);
        Ok(HttpAnswer { code, asked, text: String::from_utf8_lossy(&text).trim().chars().take(SHOWN_MAX).collect() })
    }
}

/// What the receiver answered.
struct HttpAnswer {
    code: u16,
    asked: Option<Duration>,
    text: String,
}

impl HttpAnswer {
    fn reason(&self, output: &HttpOutput) -> String {
        let said = if self.text.is_empty() { String::new() } else { format!(" ({})", self.text) };
        format!("{output} answered {}{said}", self.code)
    }
}

/// The pause that an answer asks for.
fn asked(response: &Response) -> Option<Duration> {
    let header = |name: HeaderName| response.headers().get(name).and_then(|value| value.to_str().ok());
    let now = || header(DATE).and_then(http_date).unwrap_or_else(|| Clock::Real.now());
    retry_after(header(RETRY_AFTER)?, now())
}

impl Output for HttpOutput {
    fn deliver<'a>(&'a mut self, rows: &'a Rows, ids: RowIds<'a>) -> Delivering<'a> {
        Box::pin(self.hand_over(rows, ids))
    }

    fn close(self: Box<Self>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(std::future::ready(()))
    }
}

impl fmt::Display for HttpOutput {
    /// Without the query, which may hold a signature.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut url = self.config.url.clone();
        url.set_query(None);
        f.write_str(url.as_str())
    }
}
