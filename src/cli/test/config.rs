//! ASA's own test configurations: `testConfig.json`, as the tools for Stream Analytics projects write it.
//!
//! In: the file, and the script and data files that it names. Out: a [`Case`] for each of its test cases. Invariant:
//! paths are read as the file means them, relative to it, with slashes of either kind. Not here: project files
//! (`asaproj.json`), their inputs' settings.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde::Deserialize;

use super::case::{Case, Expected, Settings, Wanted};
use super::compare::{RowObject, RowOrder};
use crate::cli::eval::finite::Event;
use crate::cli::eval::{csv_rows, read_rows};

/// The file's name, in any letter case.
pub const FILE_NAME: &str = "testconfig.json";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawConfig {
    script: PathBuf,
    test_cases: Vec<RawCase>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawCase {
    name: String,
    #[serde(default)]
    inputs: Vec<RawInput>,
    #[serde(default)]
    expected_outputs: Vec<RawOutput>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawInput {
    input_alias: String,
    /// `Data Stream` or `Reference Data`
    #[serde(default)]
    r#type: String,
    #[serde(default)]
    format: String,
    file_path: PathBuf,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawOutput {
    output_alias: String,
    file_path: PathBuf,
    /// Without it an output has to be right.
    #[serde(default = "yes")]
    required: bool,
}

fn yes() -> bool {
    true
}

/// What a file looks like, for those who have not seen one.
const FORM: &str = "a test configuration is a JSON object such as {\"Script\": \"../job.asaql\", \"TestCases\": \
    [{\"Name\": \"one\", \"Inputs\": [{\"InputAlias\": \"gw\", \"Type\": \"Data Stream\", \"Format\": \"Json\", \
    \"FilePath\": \"gw.json\"}], \"ExpectedOutputs\": [{\"OutputAlias\": \"out\", \"FilePath\": \"out.json\", \
    \"Required\": true}]}]}";

/// Whether a file is one by its name.
pub fn is_config(file: &Path) -> bool {
    file.file_name().is_some_and(|name| name.to_string_lossy().eq_ignore_ascii_case(FILE_NAME))
}

/// A case by its name, or why it is none.
pub type NamedCase = (String, Result<Case, String>);

/// The cases of a file; one that cannot be read is an error of its own.
///
/// # Errors
/// The file or its script cannot be read, or it is no test configuration; without the file's name.
pub fn read(file: &Path) -> Result<Vec<NamedCase>, String> {
    let text = fs::read_to_string(file).map_err(|e| e.to_string())?;
    let raw: RawConfig = serde_json::from_str(text.trim_start_matches('\u{feff}'))
        .map_err(|e| format!("no test configuration: {e}; {FORM}"))?;
    let script = beside(file, &raw.script);
    let query = fs::read_to_string(&script).map_err(|e| {
        format!("the script {} cannot be read: {e}; `Script` is a path relative to this file", script.display())
    })?;
    let query = query.trim_start_matches('\u{feff}');
    Ok(raw.test_cases.into_iter().map(|case| (case.name.clone(), case.read(file, query))).collect())
}

impl RawCase {
    fn read(self, file: &Path, query: &str) -> Result<Case, String> {
        let (mut inputs, mut reference) = (Vec::new(), Vec::new());
        for input in self.inputs {
            let rows = input.rows(file)?;
            match input.r#type.to_ascii_lowercase().replace(' ', "").as_str() {
                "" | "datastream" | "stream" => {
                    let events = rows.into_iter().map(Event::now).collect();
                    inputs.push((input.input_alias, events));
                }
                "referencedata" | "reference" => reference.push((input.input_alias, rows)),
                _ => {
                    let name = &input.input_alias;
                    return Err(format!(
                        "input `{name}` has the type `{}`; write `Data Stream` or `Reference Data`",
                        input.r#type
                    ));
                }
            }
        }
        let mut expected = Vec::new();
        for output in self.expected_outputs {
            let rows = read_rows(&output.output_alias, &beside(file, &output.file_path)).map_err(|e| e.to_string())?;
            let rows: Result<Vec<RowObject>, _> = rows.iter().map(|row| serde_json::from_slice(row)).collect();
            let rows = rows.map_err(|e| format!("expected output `{}`: {e}", output.output_alias))?;
            expected.push(Expected { output: output.output_alias, rows, required: output.required });
        }
        if expected.is_empty() {
            return Err(
                "`ExpectedOutputs` is empty, so nothing could fail; name an output and a file with its rows".to_owned()
            );
        }
        Ok(Case {
            name: self.name,
            file: file.to_owned(),
            query: query.to_owned(),
            inputs,
            reference,
            settings: Settings::default(),
            job: None,
            order: RowOrder::Any,
            wanted: Wanted::Outputs(expected),
        })
    }
}

impl RawInput {
    fn rows(&self, file: &Path) -> Result<Vec<Bytes>, String> {
        let (name, path) = (&self.input_alias, beside(file, &self.file_path));
        match self.format.to_ascii_lowercase().as_str() {
            "" | "json" => read_rows(name, &path).map_err(|e| e.to_string()),
            "csv" => csv_rows(name, &path).map_err(|e| e.to_string()),
            _ => Err(format!("input `{name}` has the format `{}`; test data is `Json` or `Csv`", self.format)),
        }
    }
}

/// A path as the file means it: relative to it, also with the slashes of Windows.
fn beside(file: &Path, path: &Path) -> PathBuf {
    let path = path.to_string_lossy().replace('\\', "/");
    file.parent().unwrap_or(Path::new("")).join(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::test::judge;

    /// A project of a script and test data; answers what the test of it says.
    fn project(cases: &str, expected: &str) -> Vec<(String, bool, String)> {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        fs::create_dir(folder.path().join("Test")).unwrap();
        write(
            "job.asaql",
            "\u{feff}SELECT g.v, z.name INTO [out] FROM g JOIN z ON g.k = z.k;\nSELECT COUNT(*) AS n INTO other FROM g \
            TIMESTAMP BY t GROUP BY TumblingWindow(second, 10)",
        );
        write(
            "Test/g.json",
            "{\"v\":1,\"k\":\"a\",\"t\":\"2024-01-01T00:00:01Z\"}\r\n\
            {\"v\":2,\"k\":\"b\",\"t\":\"2024-01-01T00:00:02Z\"}",
        );
        write("Test/z.csv", "k, name\na,\"first, one\"\n");
        write("Test/out.json", expected);
        write("Test/other.json", "[{\"n\": 7}]");
        write("Test/testConfig.json", &format!("{{\"Script\": \"..\\\\job.asaql\", \"TestCases\": [{cases}]}}"));
        let verdicts = judge(&folder.path().join("Test/testConfig.json"), None);
        verdicts
            .into_iter()
            .map(|v| (v.name, v.passed, v.difference.replace(&*folder.path().to_string_lossy(), ".")))
            .collect()
    }

    const INPUTS: &str = r#""Inputs": [
        {"InputAlias": "g", "Type": "Data Stream", "Format": "Json", "FilePath": "g.json", "ScriptType": "InputMock"},
        {"InputAlias": "z", "Type": "Reference Data", "Format": "Csv", "FilePath": "z.csv"}]"#;

    fn one(outputs: &str) -> String {
        format!(r#"{{"Name": "one", {INPUTS}, "ExpectedOutputs": [{outputs}]}}"#)
    }

    #[test]
    fn a_configuration_passes_or_says_what_differs() {
        let out = r#"{"OutputAlias": "out", "FilePath": "out.json", "Required": true}"#;
        assert_eq!(project(&one(out), r#"{"v":1,"name":"first, one"}"#), [("one".to_owned(), true, String::new())]);
        let [(_, passed, difference)] = &project(&one(out), r#"{"v":1,"name":"second"}"#)[..] else { panic!() };
        assert!(!passed);
        assert_eq!(
            difference,
            "  output `out`\n    missing\n      expected {\"v\":1,\"name\":\"second\"}\n      got      \
            {\"v\":1,\"name\":\"first, one\"}\n        name: expected \"second\", got \"first, one\"\n    1 row \
            expected, 1 row came, 2 differ\n"
        );
    }

    #[test]
    fn an_output_that_is_not_required_is_told_and_does_not_fail() {
        let outputs = r#"{"OutputAlias": "out", "FilePath": "out.json"},
            {"OutputAlias": "other", "FilePath": "other.json", "Required": false}"#;
        let [(_, passed, difference)] = &project(&one(outputs), r#"[{"v":1,"name":"first, one"}]"#)[..] else {
            panic!()
        };
        assert!(passed, "{difference}");
        assert!(difference.starts_with("  output `other` (not required)\n"), "{difference}");
        let required = outputs.replace("false", "true");
        assert!(!project(&one(&required), r#"[{"v":1,"name":"first, one"}]"#)[0].1);
    }

    #[test]
    fn what_is_wrong_with_a_configuration_is_said() {
        let out = r#"{"OutputAlias": "out", "FilePath": "out.json"}"#;
        for (case, wanted) in [
            (one(""), "`ExpectedOutputs` is empty"),
            (
                one(&out.replace("\"out\"", "\"outt\"")),
                "  output `outt`\n    the script writes no output of this name\n",
            ),
            (one(&out.replace("out.json", "absent.json")), "./Test/absent.json cannot be read"),
            (one(out).replace("g.json", "no.json"), "./Test/no.json cannot be read"),
            (one(out).replace("z.csv", "no.csv"), "./Test/no.csv cannot be read"),
            (one(out).replace("\"Csv\"", "\"Avro\""), "input `z` has the format `Avro`; test data is `Json` or `Csv`"),
            (
                one(out).replace("Data Stream", "Pipe"),
                "input `g` has the type `Pipe`; write `Data Stream` or `Reference Data`",
            ),
            (one(out).replace("\"Name\"", "\"Nome\""), "no test configuration: missing field `Name`"),
        ] {
            let verdicts = project(&case, "[]");
            assert!(!verdicts[0].1 && verdicts[0].2.contains(wanted), "{wanted}: {}", verdicts[0].2);
        }
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("testConfig.json");
        fs::write(&file, r#"{"Script": "no.asaql", "TestCases": []}"#).unwrap();
        assert!(judge(&file, None)[0].difference.contains("`Script` is a path relative to this file"));
    }
}
