//! A table of the file and its keys.
//!
//! In: a table of the document. Out: the value of each key that is asked for, with its type and range checked.
//! Invariant: a problem never ends the walk, so all of them are found; a key with a problem reads as its default; a key
//! that nobody asked for is told as unknown. Not here: what a key means.

use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::{DeTable, DeValue};

use super::problems::Problems;
use super::secret::Secret;
use super::units;
use crate::diagnostic::{Diagnostic, Span, suggest};

/// A text of the file, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    pub value: String,
    pub span: Span,
}

/// A table of the file.
pub struct Section<'r, 'i> {
    /// `inputs.rides`; empty for the file itself
    path: String,
    /// The last part of its name, where missing keys are told.
    pub span: Option<Span>,
    table: &'r DeTable<'i>,
    problems: &'r Problems,
    asked: Vec<String>,
    /// Not all keys could be asked for.
    is_partial: bool,
}

impl std::fmt::Debug for Section<'_, '_> {
    /// Without its content, which may hold a secret that is written where only a reference should be.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Section").field("path", &self.path).finish_non_exhaustive()
    }
}

impl<'r, 'i> Section<'r, 'i> {
    pub fn root(table: &'r DeTable<'i>, problems: &'r Problems) -> Section<'r, 'i> {
        Section { path: String::new(), span: None, table, problems, asked: Vec::new(), is_partial: false }
    }

    pub fn problems(&self) -> &'r Problems {
        self.problems
    }

    /// The section's own name, without `inputs.`.
    pub fn name(&self) -> String {
        self.path.split_once('.').map_or(self.path.as_str(), |(_, name)| name).to_string()
    }

    pub fn has(&self, key: &str) -> bool {
        self.table.keys().any(|name| name.get_ref() == key)
    }

    /// Whether something was told of the value of a key, which then reads as its default: nothing is to be concluded
    /// from that.
    pub fn is_wrong(&self, key: &str) -> bool {
        self.has(key) && self.value_span(key).is_some_and(|span| self.problems.has_error_in(span))
    }

    /// A word was wrong on which further keys depend: none is told as unknown.
    pub fn leave_unknown(&mut self) {
        self.is_partial = true;
    }

    /// Where a key stands; the section's name when it is absent.
    pub fn key_span(&self, key: &str) -> Option<Span> {
        let found = self.table.keys().find(|name| name.get_ref() == key);
        found.map(|name| Span::from(name.span())).or(self.span)
    }

    /// Where the value of a key stands; the section's name when it is absent.
    pub fn value_span(&self, key: &str) -> Option<Span> {
        let value = self.table.iter().find(|(name, _)| name.get_ref() == key);
        value.map(|(_, value)| Span::from(value.span())).or(self.span)
    }

    /// Says that the value of a key is wrong.
    pub fn wrong(&self, key: &str, title: impl Into<String>, label: impl Into<String>, help: impl Into<String>) {
        self.problems.push(Diagnostic::error(title, self.value_span(key)).label(label).help(help));
    }

    fn ask(&mut self, key: &str) {
        if !self.asked.iter().any(|asked| asked == key) {
            self.asked.push(key.to_string());
        }
    }

    pub fn get(&mut self, key: &str) -> Option<(&'r DeValue<'i>, Span)> {
        self.ask(key);
        let (_, value) = self.table.iter().find(|(name, _)| name.get_ref() == key)?;
        Some((value.get_ref(), Span::from(value.span())))
    }

    fn expected(&self, key: &str, span: Span, what: &str, help: &str) {
        self.problems.push(
            Diagnostic::error(format!("`{key}` has the wrong form"), span).label(format!("expected {what}")).help(help),
        );
    }

    pub fn missing(&self, key: &str, help: &str) {
        let title = format!("`[{}]` needs `{key}`", self.path);
        self.problems.push(Diagnostic::error(title, self.span).label(format!("`{key}` is missing")).help(help));
    }

    pub fn text(&mut self, key: &str) -> Option<Text> {
        self.text_or(key, "leave the key out for its default")
    }

    /// `empty`: what to do about a text that is empty.
    fn text_or(&mut self, key: &str, empty: &str) -> Option<Text> {
        let (value, span) = self.get(key)?;
        match value {
            DeValue::String(text) if !text.is_empty() && !text.contains('\0') => {
                Some(Text { value: text.to_string(), span })
            }
            DeValue::String(text) if text.is_empty() => {
                self.expected(key, span, "a text that is not empty", empty);
                None
            }
            DeValue::String(_) => {
                self.expected(key, span, "a text without the character U+0000", "write it without `\\u0000`");
                None
            }
            _ => {
                self.expected(key, span, "a text", &format!("write `{key} = \"…\"`"));
                None
            }
        }
    }

    pub fn required_text(&mut self, key: &str, help: &str) -> Option<Text> {
        if !self.has(key) {
            self.ask(key);
            self.missing(key, help);
            return None;
        }
        self.text_or(key, help)
    }

    /// Texts of a list, without what is none; `None` when it is absent or no list.
    pub fn texts(&mut self, key: &str) -> Option<Vec<Text>> {
        let (value, span) = self.get(key)?;
        let help = format!("write `{key} = [\"…\"]`");
        let DeValue::Array(items) = value else {
            self.expected(key, span, "a list of texts", &help);
            return None;
        };
        let mut texts = Vec::new();
        for item in items.iter() {
            match item.get_ref() {
                DeValue::String(text) => texts.push(Text { value: text.to_string(), span: Span::from(item.span()) }),
                _ => self.expected(key, Span::from(item.span()), "a text", &help),
            }
        }
        Some(texts)
    }

    pub fn required_texts(&mut self, key: &str, help: &str) -> Vec<Text> {
        if !self.has(key) {
            self.ask(key);
            self.missing(key, help);
            return Vec::new();
        }
        let texts = self.texts(key).unwrap_or_default();
        if texts.is_empty() && !self.is_wrong(key) {
            self.wrong(key, format!("`{key}` is empty"), "expected at least one", help);
        }
        texts
    }

    pub fn boolean(&mut self, key: &str, default: bool) -> bool {
        match self.get(key) {
            None => default,
            Some((DeValue::Boolean(value), _)) => *value,
            Some((_, span)) => {
                self.expected(key, span, "`true` or `false`", &format!("write `{key} = {default}`"));
                default
            }
        }
    }

    pub fn count(&mut self, key: &str, least: u64, most: u64, default: u64) -> u64 {
        self.optional_count(key, least, most, &format!("the default is {default}")).unwrap_or(default)
    }

    pub fn optional_count(&mut self, key: &str, least: u64, most: u64, help: &str) -> Option<u64> {
        let (value, span) = self.get(key)?;
        let number = match value {
            DeValue::Integer(number) => u64::from_str_radix(number.as_str(), number.radix()).ok(),
            _ => None,
        };
        let fits = number.filter(|number| (least..=most).contains(number));
        if fits.is_none() {
            self.expected(key, span, &format!("a whole number from {least} to {most}"), help);
        }
        fits
    }

    /// A size in bytes: a text with a unit, or a plain number of bytes.
    pub fn size(&mut self, key: &str, least: u64, most: u64, default: u64) -> u64 {
        self.optional_size(key, least, most, &format!("the default is \"{}\"", units::show_size(default)))
            .unwrap_or(default)
    }

    pub fn optional_size(&mut self, key: &str, least: u64, most: u64, help: &str) -> Option<u64> {
        let (value, span) = self.get(key)?;
        let bytes = match value {
            DeValue::String(text) => units::size(text),
            DeValue::Integer(number) => u64::from_str_radix(number.as_str(), number.radix()).ok(),
            _ => None,
        };
        let fits = bytes.filter(|bytes| (least..=most).contains(bytes));
        if fits.is_none() {
            let (least, most) = (units::show_size(least), units::show_size(most));
            self.expected(
                key,
                span,
                &format!("a size from \"{least}\" to \"{most}\""),
                &format!("write it with a unit, like \"32MiB\" or \"1GB\"; {help}"),
            );
        }
        fits
    }

    pub fn duration(&mut self, key: &str, least: Duration, most: Duration, default: Duration) -> Duration {
        self.optional_duration(key, least, most, &format!("the default is \"{}\"", units::show_duration(default)))
            .unwrap_or(default)
    }

    pub fn optional_duration(&mut self, key: &str, least: Duration, most: Duration, help: &str) -> Option<Duration> {
        let (value, span) = self.get(key)?;
        let duration = match value {
            DeValue::String(text) => units::duration(text),
            _ => None,
        };
        let fits = duration.filter(|duration| (least..=most).contains(duration));
        if fits.is_none() {
            let (least, most) = (units::show_duration(least), units::show_duration(most));
            self.expected(
                key,
                span,
                &format!("a duration from \"{least}\" to \"{most}\""),
                &format!("write it with a unit, like \"20ms\", \"5s\" or \"7d\"; {help}"),
            );
        }
        fits
    }

    /// `None`: `"forever"`, or -1 as Stream Analytics writes it.
    pub fn duration_or_forever(
        &mut self,
        key: &str,
        least: Duration,
        most: Duration,
        default: Option<Duration>,
    ) -> Option<Duration> {
        let (value, _) = match self.get(key) {
            None => return default,
            Some(found) => found,
        };
        let forever = match value {
            DeValue::String(text) => text.eq_ignore_ascii_case("forever"),
            DeValue::Integer(number) => number.as_str() == "-1",
            _ => false,
        };
        if forever {
            return None;
        }
        let default_text = default.map_or("forever".into(), units::show_duration);
        self.optional_duration(key, least, most, &format!("or \"forever\"; the default is \"{default_text}\""))
            .or(default)
    }

    /// One of some words.
    pub fn choice<T: Copy>(&mut self, key: &str, words: &[(&str, T)], default: T) -> T {
        self.optional_choice(key, words).unwrap_or(default)
    }

    pub fn optional_choice<T: Copy>(&mut self, key: &str, words: &[(&str, T)]) -> Option<T> {
        let (value, span) = self.get(key)?;
        let written = match value {
            DeValue::String(text) => text.as_ref(),
            _ => "",
        };
        let found = words.iter().find(|(word, _)| *word == written).map(|(_, value)| *value);
        if found.is_none() {
            let all: Vec<String> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
            let help = match suggest(written, words.iter().map(|(word, _)| *word)) {
                Some(meant) => format!("did you mean \"{meant}\"?"),
                None => format!("write `{key} = {}`", all.first().map_or("", String::as_str)),
            };
            self.expected(key, span, &all.join(" or "), &help);
        }
        found
    }

    /// What stands in a table under the word of `type`, which has to be there; `help` is for one that is missing.
    pub fn kind<T: Copy>(&mut self, table: &[(&str, T)], help: &str) -> Option<T> {
        self.required_text("type", help)?;
        self.optional_choice("type", table)
    }

    /// A path, relative to the job file.
    pub fn path(&mut self, key: &str) -> Option<PathBuf> {
        let text = self.text(key)?;
        Some(self.problems.folder().join(text.value))
    }

    /// The path of a file that is made when it is not there. A folder that is missing here may be there on the machine
    /// that runs the job: a warning.
    pub fn file_to_make(&mut self, key: &str) -> Option<PathBuf> {
        let path = self.path(key)?;
        if !self.problems.looks_at_files() {
            return Some(path);
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if path.is_dir() {
            let help = "name a file in it";
            self.wrong(key, format!("`{key}` names no file"), format!("{} is a folder", path.display()), help);
        } else if !folder.is_dir() {
            let title = format!("the folder of `{key}` is not there");
            let warning = Diagnostic::warning(title, self.value_span(key)).label(format!("no {}", folder.display()));
            self.problems
                .push(warning.help("make the folder before the job starts; paths are relative to the job file"));
        }
        Some(path)
    }

    /// The path of a file that has to exist.
    pub fn file(&mut self, key: &str) -> Option<PathBuf> {
        let text = self.text(key)?;
        Some(self.existing(key, &text))
    }

    fn existing(&self, key: &str, text: &Text) -> PathBuf {
        let path = self.problems.folder().join(&text.value);
        if self.problems.looks_at_files() && !path.is_file() {
            let help = "paths are relative to the job file";
            let why = if path.exists() { "is no file" } else { "does not exist" };
            self.wrong(key, format!("`{key}` names no file"), format!("{} {why}", path.display()), help);
        }
        path
    }

    pub fn required_file(&mut self, key: &str, help: &str) -> Option<PathBuf> {
        let text = self.required_text(key, help)?;
        Some(self.existing(key, &text))
    }

    /// A password or the like, given by reference.
    pub fn secret(&mut self, key: &str) -> Option<Secret> {
        let text = self.text(key)?;
        match Secret::parse(&text.value, text.span, self.problems.folder()) {
            Some(secret) => Some(secret),
            None => {
                self.problems.refuse_secret(key, text.span);
                None
            }
        }
    }

    /// A key that goes into a header of HTTP, given by reference.
    pub fn key(&mut self, key: &str) -> Option<Secret> {
        self.secret(key).map(Secret::as_key)
    }

    /// A table inside this one.
    pub fn section(&mut self, key: &str, required: bool) -> Option<Section<'r, 'i>> {
        match self.get(key) {
            Some((DeValue::Table(table), _)) => Some(self.inner(key, table)),
            Some((_, span)) => {
                self.expected(key, span, &format!("a section `[{key}]`"), "settings stand under their section");
                None
            }
            None => {
                if required {
                    self.problems.push(
                        Diagnostic::error(format!("the section `[{key}]` is missing"), None)
                            .help(format!("start the file with `[{key}]`")),
                    );
                }
                None
            }
        }
    }

    pub fn inner(&self, key: &str, table: &'r DeTable<'i>) -> Section<'r, 'i> {
        let path = if self.path.is_empty() { key.to_string() } else { format!("{}.{key}", self.path) };
        Section { path, span: self.key_span(key), table, problems: self.problems, asked: Vec::new(), is_partial: false }
    }

    /// The tables `[key.NAME]`, in the order of the file.
    pub fn named<T>(&mut self, key: &str, read: impl Fn(Section<'r, 'i>) -> Option<T>) -> Vec<T> {
        let Some(section) = self.section(key, false) else { return Vec::new() };
        let mut entries: Vec<_> = section.table.iter().collect();
        entries.sort_by_key(|(name, _)| name.span().start);
        let mut all = Vec::new();
        for (name, value) in entries {
            let span = Span::from(name.span());
            if name.get_ref().is_empty() || name.get_ref().chars().any(char::is_control) {
                section.problems.push(
                    Diagnostic::error("a name is empty or has control characters", span)
                        .label("expected a name a query can write")
                        .help("write `[inputs.rides]`"),
                );
            }
            match value.get_ref() {
                DeValue::Table(table) => all.extend(read(section.inner(name.get_ref(), table))),
                _ => section.expected(
                    name.get_ref(),
                    Span::from(value.span()),
                    &format!("a section `[{key}.{}]`", name.get_ref()),
                    "settings stand under their section",
                ),
            }
        }
        all
    }

    /// Says which keys nobody asked for.
    pub fn finish(self) {
        let unknown = |name: &str| !self.is_partial && !self.asked.iter().any(|asked| asked == name);
        for name in self.table.keys().filter(|name| unknown(name.get_ref())) {
            let place = if self.path.is_empty() { "the job file".to_string() } else { format!("`[{}]`", self.path) };
            let error = Diagnostic::error(format!("unknown key `{}`", name.get_ref()), Span::from(name.span()))
                .label(format!("{place} has no such key"));
            let help = match suggest(name.get_ref(), &self.asked) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("known are {}", self.asked.join(", ")),
            };
            self.problems.push(error.help(help));
        }
    }
}

/// ``write `type = "a"`, `type = "b"` or `type = "c"` ``, for the words of a table.
pub fn one_of<T>(table: &[(&str, T)]) -> String {
    let words: Vec<String> = table.iter().map(|(word, _)| format!("`type = \"{word}\"`")).collect();
    match words.split_last() {
        Some((last, [])) => format!("write {last}"),
        Some((last, others)) => format!("write {} or {last}", others.join(", ")),
        None => String::new(),
    }
}
