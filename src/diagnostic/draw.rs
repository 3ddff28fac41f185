//! The drawn form of a diagnostic: title, place, line, caret, notes, help.
//!
//! In: a text and a span. Out: plain lines, no colour. Invariant: the caret stands under what the span names, also
//! behind tabs and wide characters. Not here: order and counting of problems (the parent module).

use std::fmt::{self, Display, Formatter};

use unicode_width::UnicodeWidthChar;

use super::{Diagnostic, Diagnostics, counted};

/// A tab is drawn as this many blanks.
const TAB: &str = "    ";
/// Columns of a line that are drawn on either side of the caret's start; the rest of a longer line is cut off.
const AROUND: usize = 120;

impl Display for Diagnostics {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (i, item) in self.items.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{}: ", if item.is_warning { "warning" } else { "error" })?;
            draw(f, self, item)?;
        }
        let errors = self.error_count();
        let warnings = self.items.len() - errors;
        if self.items.len() > 1 {
            let counts = [(errors, "error"), (warnings, "warning")].into_iter().filter(|(count, _)| *count > 0);
            let closing = counts.map(|(count, what)| counted(count, what)).collect::<Vec<_>>().join(", ");
            writeln!(f, "\n{closing}")?;
        }
        Ok(())
    }
}

/// A problem without the word in front of its title, and without a line feed at its end.
pub(super) fn without_level(of: &Diagnostics, item: &Diagnostic) -> String {
    let mut drawn = String::new();
    // a string takes everything
    let _ = draw(&mut drawn, of, item);
    drawn.truncate(drawn.trim_end().len());
    drawn
}

fn draw(f: &mut dyn fmt::Write, of: &Diagnostics, item: &Diagnostic) -> fmt::Result {
    writeln!(f, "{}", printable(&item.title))?;
    let mut gutter = 1;
    match item.span {
        None => writeln!(f, "  --> {}", of.file)?,
        Some(span) => {
            let place = FirstLine::find(&of.text, span.start, span.end);
            let number = place.line.to_string();
            gutter = number.len();
            let drawn = Drawn::new(&place);
            writeln!(f, "{:gutter$} --> {}:{}:{}", "", of.file, place.line, place.column)?;
            writeln!(f, " {:gutter$} |", "")?;
            writeln!(f, "{}", format!(" {number} | {}", drawn.text).trim_end())?;
            let carets = format!("{:indent$}{}", "", "^".repeat(drawn.carets), indent = drawn.indent);
            writeln!(f, " {:gutter$} | {}", "", format!("{carets} {}", printable(&item.label)).trim_end())?;
        }
    }
    let notes = item.notes.iter().map(|note| ("note", note)).chain(item.help.iter().map(|help| ("help", help)));
    for (kind, text) in notes {
        // continuation lines stand under the text of the first
        let indented = text.lines().map(printable).collect::<Vec<_>>().join(&format!("\n {:gutter$}         ", ""));
        writeln!(f, " {:gutter$} = {kind}: {indented}", "")?;
    }
    Ok(())
}

/// What would move the cursor or ring the bell is shown as a replacement character.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c == '\t' { ' ' } else { shown(c) }).collect()
}

fn shown(c: char) -> char {
    if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }
}

/// A span's first line.
struct FirstLine<'a> {
    /// from 1
    line: usize,
    /// from 1, in characters
    column: usize,
    text: &'a str,
    /// bytes of `text` before the span
    start: usize,
    /// end of the span in bytes of `text`, at most its length
    end: usize,
}

impl<'a> FirstLine<'a> {
    fn find(text: &'a str, start: usize, end: usize) -> FirstLine<'a> {
        let start = text.floor_char_boundary(start.min(text.len()));
        let (before, after) = text.split_at(start);
        let line_start = before.rfind('\n').map_or(0, |i| i + 1);
        let line_end = after.find('\n').map_or(text.len(), |i| start + i);
        let line = text.get(line_start..line_end).unwrap_or_default();
        let line = line.strip_suffix('\r').unwrap_or(line);
        let column = before.get(line_start..).unwrap_or_default();
        FirstLine {
            line: before.matches('\n').count() + 1,
            column: column.chars().count() + 1,
            text: line,
            start: column.len().min(line.len()),
            end: line.ceil_char_boundary(end.clamp(start, line_start + line.len().max(column.len())) - line_start),
        }
    }
}

/// A line as shown, with the place of the carets in columns.
struct Drawn {
    text: String,
    indent: usize,
    carets: usize,
}

impl Drawn {
    fn new(place: &FirstLine) -> Drawn {
        let from = place.text.char_indices().filter(|(at, _)| *at < place.start).count().saturating_sub(AROUND);
        let mut drawn = Drawn { text: String::new(), indent: 0, carets: 0 };
        if from > 0 {
            drawn.text.push('…');
            drawn.indent = 1;
        }
        for (count, (at, c)) in place.text.char_indices().skip(from).enumerate() {
            if count >= 2 * AROUND {
                drawn.text.push('…');
                break;
            }
            let columns = if c == '\t' {
                drawn.text.push_str(TAB);
                TAB.len()
            } else {
                drawn.text.push(shown(c));
                shown(c).width().unwrap_or(0)
            };
            if at < place.start {
                drawn.indent += columns;
            } else if at < place.end {
                drawn.carets += columns;
            }
        }
        drawn.text.truncate(drawn.text.trim_end().len());
        drawn.carets = drawn.carets.max(1);
        drawn
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::super::Span;
    use super::*;

    fn check(text: &str, items: Vec<Diagnostic>, want: Expect) {
        let drawn = Diagnostics { file: "q".into(), text: text.into(), items }.to_string();
        want.assert_eq(&drawn);
    }

    fn at(start: usize, end: usize) -> Diagnostic {
        Diagnostic::error("wrong", Span::new(start, end)).label("here")
    }

    #[test]
    fn the_caret_stands_under_its_text_behind_tabs_and_wide_characters() {
        check(
            "\tä = 温度 - x\r\n",
            vec![at(15, 16)],
            expect![[r#"
            error: wrong
              --> q:1:11
               |
             1 |     ä = 温度 - x
               |                ^ here
        "#]],
        );
        check(
            "温度",
            vec![at(0, 6)],
            expect![[r#"
            error: wrong
              --> q:1:1
               |
             1 | 温度
               | ^^^^ here
        "#]],
        );
        check(
            "a\u{7}b\u{1b}[1m",
            vec![at(2, 3)],
            expect![[r#"
            error: wrong
              --> q:1:3
               |
             1 | a�b�[1m
               |   ^ here
        "#]],
        );
    }

    #[test]
    fn every_span_draws() {
        check(
            "ab\ncd",
            vec![at(5, 5)],
            expect![[r#"
            error: wrong
              --> q:2:3
               |
             2 | cd
               |   ^ here
        "#]],
        );
        check(
            "ab\n",
            vec![at(3, 3)],
            expect![[r#"
                error: wrong
                  --> q:2:1
                   |
                 2 |
                   | ^ here
            "#]],
        );
        check(
            "",
            vec![at(0, 0)],
            expect![[r#"
                error: wrong
                  --> q:1:1
                   |
                 1 |
                   | ^ here
            "#]],
        );
        check(
            "ab\ncd",
            vec![at(1, 5)],
            expect![[r#"
            error: wrong
              --> q:1:2
               |
             1 | ab
               |  ^ here
        "#]],
        );
        check(
            "äb",
            vec![at(1, 99)],
            expect![[r#"
            error: wrong
              --> q:1:1
               |
             1 | äb
               | ^^ here
        "#]],
        );
        check(
            "ab",
            vec![at(7, 3)],
            expect![[r#"
            error: wrong
              --> q:1:3
               |
             1 | ab
               |   ^ here
        "#]],
        );
    }

    #[test]
    fn a_long_line_is_cut_around_the_caret() {
        let line = "x".repeat(5000);
        let mut far = Diagnostics::new("q", line.as_str());
        far.push(at(3000, 3002));
        let drawn = far.to_string();
        let lines: Vec<&str> = drawn.lines().collect();
        assert_eq!(lines[1], "  --> q:1:3001");
        assert_eq!(lines[3], format!(" 1 | …{}…", "x".repeat(240)));
        assert_eq!(lines[4], format!("   | {}^^ here", " ".repeat(121)));
    }

    #[test]
    fn notes_help_warnings_and_the_closing_line() {
        let warning = Diagnostic::warning("odd", None).note("first\nsecond").note("third").help("do\nthis");
        let second = at(11 * 2, 23);
        check(
            &"a\n".repeat(12),
            vec![warning, second.clone(), second],
            expect![[r#"
            warning: odd
              --> q
               = note: first
                       second
               = note: third
               = help: do
                       this

            error: wrong
               --> q:12:1
                |
             12 | a
                | ^ here

            error: wrong
               --> q:12:1
                |
             12 | a
                | ^ here

            2 errors, 1 warning
        "#]],
        );
    }

    proptest::proptest! {
        #[test]
        fn any_span_of_any_text_draws(text in "\\PC{0,20}(\n|\t|\r\n\
            |é){0,3}\\PC{0,9}", start in 0usize..40, end in 0usize..40) {
            let mut items = Diagnostics::new("q", text);
            items.push(at(start, end));
            assert!(items.to_string().contains('^'));
        }
    }
}
