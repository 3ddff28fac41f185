//! Rows to standard output, one JSON object a line.
//!
//! Invariant: rows are handed to the system before they count as delivered. Not here: what a closed pipe means for the
//! job (it ends).

use std::fmt;
use std::io::{self, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use super::{Delivering, Delivery, Output, OutputSettings, RowIds, Site, ToldColumns, lines};
use crate::batch::Rows;
use crate::settings::Section;

/// Standard output, as the job describes it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StdoutOutputConfig {
    pub told: ToldColumns,
}

/// Reads the section for the table of outputs.
pub(super) fn read(section: &mut Section) -> Option<Arc<dyn OutputSettings>> {
    Some(Arc::new(StdoutOutputConfig { told: ToldColumns::read(section) }))
}

impl OutputSettings for StdoutOutputConfig {
    /// A reader that pauses is outside of the process.
    fn attempt_max(&self) -> Duration {
        Duration::MAX
    }

    fn build(&self, _: Site<'_>) -> Result<Box<dyn Output>, String> {
        Ok(Box::new(StdoutOutput { told: self.told.clone() }))
    }

    fn told(&self) -> &ToldColumns {
        &self.told
    }
}

#[derive(Debug)]
struct StdoutOutput {
    told: ToldColumns,
}

impl Output for StdoutOutput {
    fn deliver<'a>(&'a mut self, rows: &'a Rows, ids: RowIds<'a>) -> Delivering<'a> {
        Box::pin(self.print(rows, ids))
    }

    fn close(self: Box<Self>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(std::future::ready(()))
    }
}

impl fmt::Display for StdoutOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("standard output")
    }
}

impl StdoutOutput {
    async fn print(&mut self, rows: &Rows, ids: RowIds<'_>) -> Delivery {
        let text = lines(rows, &self.told, ids);
        // a pipe whose reader pauses blocks the writer
        let written = tokio::task::spawn_blocking(move || write(&mut io::stdout().lock(), text.as_bytes())).await;
        match written {
            Ok(delivery) => delivery,
            Err(error) => Delivery::try_again(format!("standard output: {error}")),
        }
    }
}

fn write(out: &mut impl Write, text: &[u8]) -> Delivery {
    match out.write_all(text).and_then(|()| out.flush()) {
        Ok(()) => Delivery::Delivered,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
            Delivery::Gone { reason: "whoever read standard output has left".to_owned() }
        }
        Err(error) => Delivery::try_again(format!("standard output: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_pipe_is_final_and_other_errors_are_not() {
        assert_eq!(write(&mut Vec::new(), b"x"), Delivery::Delivered);
        let (reader, mut writer) = io::pipe().unwrap();
        drop(reader);
        assert!(matches!(write(&mut writer, b"x"), Delivery::Gone { .. }));
        let mut full = [0u8; 1];
        assert!(matches!(write(&mut &mut full[..], b"xx"), Delivery::TryAgain { .. }));
    }
}
