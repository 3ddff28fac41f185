//! What a row tells of itself beside its columns.
//!
//! In: the keys `row_id`, `scored_by` and `revision` of a section, then rows. Out: the columns that they ask for.
//! Invariant: a column of the row that has the same name wins. Not here: what ids are made of (`RowIds`).

use smol_str::SmolStr;

use super::RowIds;
use crate::batch::{Rows, shown};
use crate::settings::{Section, Text};
use crate::value::write_json_text;

/// The columns that an output adds to its rows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ToldColumns {
    /// Carries the row's id.
    pub row_id: Option<Text>,
    /// Carries the name of the function that scored the row, or NULL.
    pub scored_by: Option<Text>,
    /// Carries 0, or 1 where another answer to the row was given out before.
    pub revision: Option<Text>,
}

impl ToldColumns {
    /// Only the id, in a column of this name.
    pub fn id(name: &str) -> ToldColumns {
        let row_id = Text { value: name.to_owned(), span: Default::default() };
        ToldColumns { row_id: Some(row_id), ..ToldColumns::default() }
    }

    /// Reads the keys.
    pub(super) fn read(section: &mut Section) -> ToldColumns {
        let row_id = section.text("row_id");
        let scored_by = section.text("scored_by");
        let revision = section.text("revision");
        let columns = ToldColumns { row_id, scored_by, revision };
        let mut before: Vec<&str> = Vec::new();
        for (key, name) in
            [("row_id", &columns.row_id), ("scored_by", &columns.scored_by), ("revision", &columns.revision)]
        {
            let Some(name) = name.as_ref().map(|text| text.value.as_str()) else { continue };
            if before.contains(&name) {
                let title = format!("two columns would have the name `{name}`");
                section.wrong(key, title, "it is taken already", format!("write `{key} = \"{key}\"`"));
            }
            before.push(name);
        }
        columns
    }

    /// Adds its columns to row `i`, which was written as a JSON object from `start` on.
    pub(super) fn write(&self, rows: &Rows, i: usize, ids: RowIds<'_>, start: usize, out: &mut String) {
        let Some(meta) = rows.batch.meta().get(i) else { return };
        let own = shown(&rows.columns, rows.batch.row(i));
        let mut add = |name: &Option<Text>, value: &dyn Fn(&mut String)| {
            let Some(Text { value: name, .. }) = name else { return };
            if own.iter().any(|(column, _)| *column == name) {
                return;
            }
            out.pop();
            if out.len() > start + 1 {
                out.push(',');
            }
            write_json_text(name, out);
            out.push(':');
            value(out);
            out.push('}');
        };
        add(&self.row_id, &|out| write_json_text(&ids.id(meta), out));
        add(&self.scored_by, &|out| match ids.scored_by(meta) {
            Some(name) => write_json_text(name, out),
            None => out.push_str("null"),
        });
        add(&self.revision, &|out| out.push_str(&meta.provenance.revision().to_string()));
    }

    /// Whether it asks for nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.row_id.is_none() && self.scored_by.is_none() && self.revision.is_none()
    }
}

/// The functions that score the rows of a statement, as outputs name them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScorerNames {
    pub endpoint: SmolStr,
    pub fallback: SmolStr,
}
