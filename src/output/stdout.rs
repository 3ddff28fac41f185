//! Rows to standard output, one JSON object a line.
//!
//! Invariant: rows are handed to the system before they count as delivered. Not here: what a closed pipe means for the
//! job (it ends).

use std::io::{self, Write};

use smol_str::SmolStr;

use super::{Delivery, RowIds, lines};
use crate::batch::Rows;

#[derive(Debug)]
pub struct StdoutOutput {
    row_id: Option<SmolStr>,
}

impl StdoutOutput {
    pub(super) fn new(row_id: Option<SmolStr>) -> StdoutOutput {
        StdoutOutput { row_id }
    }

    pub(super) async fn deliver(&mut self, rows: &Rows, ids: RowIds<'_>) -> Delivery {
        let text = lines(rows, self.row_id.as_ref(), ids);
        // a pipe whose reader pauses blocks the writer
        let written = tokio::task::spawn_blocking(move || write(&mut io::stdout().lock(), text.as_bytes())).await;
        match written {
            Ok(delivery) => delivery,
            Err(error) => Delivery::TryAgain { reason: format!("standard output: {error}") },
        }
    }
}

fn write(out: &mut impl Write, text: &[u8]) -> Delivery {
    match out.write_all(text).and_then(|()| out.flush()) {
        Ok(()) => Delivery::Delivered,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
            Delivery::Gone { reason: "whoever read standard output has left".to_owned() }
        }
        Err(error) => Delivery::TryAgain { reason: format!("standard output: {error}") },
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
