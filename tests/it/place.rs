//! A folder of its own for the commands as a person runs them: with relative paths, so that messages are the same on
//! every machine.

use std::fs;
use std::path::Path;

use expect_test::Expect;
use tempfile::TempDir;

use crate::harness::{cli_in, component};

pub struct Place {
    dir: TempDir,
    environment: Vec<(&'static str, String)>,
}

impl Place {
    /// An empty folder, and what the commands find in their environment.
    pub fn new(environment: &[(&'static str, &str)]) -> Place {
        let environment = environment.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        Place { dir: tempfile::tempdir().unwrap(), environment }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> &Place {
        fs::write(self.path().join(name), bytes).unwrap();
        self
    }

    /// An example's component under its own name.
    pub fn with(&self, name: &str) -> &Place {
        fs::copy(component(name), self.path().join(format!("{name}.wasm"))).unwrap();
        self
    }

    /// Exit code and all that is printed: first what goes to standard output, then what goes to standard error.
    pub fn answer(&self, args: &[&str]) -> String {
        let environment: Vec<(&str, &str)> =
            self.environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
        self.answer_in(&environment, args)
    }

    pub fn answer_in(&self, environment: &[(&str, &str)], args: &[&str]) -> String {
        let (code, out, err) = cli_in(self.path(), environment, args);
        let text = format!("exit {code}\n{out}{err}");
        assert!(text.lines().all(|line| line.trim_end() == line), "blanks at the end of a line:\n{text}");
        assert!(!text.contains("panicked"), "{text}");
        text
    }

    pub fn expect(&self, args: &[&str], wanted: &Expect) {
        wanted.assert_eq(&self.answer(args));
    }

    /// One command after the other, each with an answer of its own.
    pub fn expect_each<'a>(&self, cases: impl IntoIterator<Item = (&'a [&'a str], Expect)>) {
        for (args, wanted) in cases {
            self.expect(args, &wanted);
        }
    }

    /// One command after the other: all say the same.
    pub fn expect_of_all(&self, commands: &[&[&str]], wanted: &Expect) {
        for args in commands {
            self.expect(args, wanted);
        }
    }

    /// The command over each content of a file, which has an answer of its own.
    pub fn expect_of_contents<T: AsRef<[u8]>>(
        &self,
        file: &str,
        args: &[&str],
        cases: impl IntoIterator<Item = (T, Expect)>,
    ) {
        for (content, wanted) in cases {
            self.write(file, content);
            self.expect(args, &wanted);
        }
    }
}
