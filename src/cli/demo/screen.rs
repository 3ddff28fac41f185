//! What a person watches: one status line, rewritten in place on a terminal, written every two seconds elsewhere.
//!
//! In: numbers, now and then. Out: lines on standard output. Invariant: a line is never wider than 80 columns; output
//! that nobody reads any more stops nothing. Not here: where the numbers come from.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use crate::cli::journal::number;

/// What the status line shows.
#[derive(Clone, Debug, Default)]
pub struct Numbers {
    pub elapsed: Duration,
    pub received: u64,
    pub scored: u64,
    /// Rows the separate receiver got.
    pub delivered: u64,
    pub pending: u64,
    pub endpoint: &'static str,
}

/// Standard output, and whether it is a terminal.
#[derive(Debug)]
pub struct Screen {
    is_terminal: bool,
    /// A status line stands where the cursor is.
    is_open: bool,
    rates: Rates,
}

/// Between two status lines: smooth for the eye on a terminal, few lines in a file.
const ON_TERMINAL: Duration = Duration::from_millis(250);
const ELSEWHERE: Duration = Duration::from_secs(2);
/// A rate is taken over at least this long; shorter ones jump about.
const RATE_OVER: Duration = Duration::from_millis(950);

impl Screen {
    /// On standard output.
    pub fn new() -> Screen {
        Screen { is_terminal: io::stdout().is_terminal(), is_open: false, rates: Rates::default() }
    }

    /// How often [`Screen::status`] wants to be called.
    pub fn interval(&self) -> Duration {
        if self.is_terminal { ON_TERMINAL } else { ELSEWHERE }
    }

    /// One or more whole lines; a status line that stands there stays above them.
    pub fn say(&mut self, text: &str) {
        let end = if std::mem::take(&mut self.is_open) { "\n" } else { "" };
        write(&format!("{end}{}\n", text.trim_end_matches('\n')));
    }

    /// The names of the columns.
    pub fn header(&mut self) {
        self.say(&line(["time", "received", "scored", "delivered", "in pool", "in/s", "out/s", "endpoint"]));
    }

    /// Rewrites the status line, or writes another.
    pub fn status(&mut self, now: &Numbers) {
        self.rates.update(now);
        let text = now.line(&self.rates);
        if self.is_terminal {
            write(&format!("\r{text}\x1b[K"));
            self.is_open = true;
        } else {
            write(&format!("{text}\n"));
        }
    }
}

impl Default for Screen {
    fn default() -> Screen {
        Screen::new()
    }
}

fn write(text: &str) {
    let mut out = io::stdout().lock();
    // a reader that went away is no reason to end the job in the middle
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Events a second, in and out.
#[derive(Debug, Default)]
struct Rates {
    since: Numbers,
    received: u64,
    delivered: u64,
}

impl Rates {
    fn update(&mut self, now: &Numbers) {
        let span = now.elapsed.saturating_sub(self.since.elapsed);
        if span < RATE_OVER {
            return;
        }
        let rate = |now: u64, then: u64| (now.saturating_sub(then) as f64 / span.as_secs_f64()).round() as u64;
        self.received = rate(now.received, self.since.received);
        self.delivered = rate(now.delivered, self.since.delivered);
        self.since = now.clone();
    }
}

impl Numbers {
    fn line(&self, rates: &Rates) -> String {
        let time = format!("{} s", self.elapsed.as_secs());
        let numbers =
            [self.received, self.scored, self.delivered, self.pending, rates.received, rates.delivered].map(number);
        let [received, scored, delivered, pending, incoming, outgoing] = &numbers;
        line([&time, received, scored, delivered, pending, incoming, outgoing, self.endpoint])
    }
}

fn line([time, received, scored, delivered, pending, incoming, outgoing, endpoint]: [&str; 8]) -> String {
    format!(
        "{time:>6} {received:>10} {scored:>10} {delivered:>10} {pending:>9} {incoming:>7} {outgoing:>7}  {endpoint}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_shows_what_changed_each_second_and_fits_a_terminal() {
        let mut rates = Rates::default();
        let at = |seconds, received, delivered| Numbers {
            elapsed: Duration::from_secs(seconds),
            received,
            scored: delivered,
            delivered,
            pending: received - delivered,
            endpoint: "DOWN",
        };
        rates.update(&at(2, 600, 500));
        rates.update(&at(4, 1_200_000, 500));
        let line = at(4, 1_200_000, 500).line(&rates);
        assert_eq!(
            line.split_whitespace().collect::<Vec<_>>(),
            ["4", "s", "1,200,000", "500", "500", "1,199,500", "599,700", "0", "DOWN"]
        );
        assert!(line.len() <= 80, "{line}");
    }
}
