//! One mistake in a job file is told once: what depends on the wrong value gives no second error.

use std::path::Path;

use forebay::job;

use crate::harness::cli;
use crate::support::refused_once;

/// Sections by name; a mistake adds lines to one of them.
const SECTIONS: [(&str, &str); 8] = [
    ("job", "name = \"job\"\nquery = \"job.asaql\"\n"),
    ("journal", ""),
    ("metrics", ""),
    ("inputs.in", "type = \"mqtt\"\nurl = \"mqtt://127.0.0.1\"\n"),
    ("inputs.table", "type = \"reference\"\npath = \"zones.csv\"\n"),
    ("functions.score", "type = \"azureml\"\n"),
    ("functions.local", "type = \"wasm\"\ncomponent = \"local.wasm\"\n"),
    ("outputs.out", ""),
];

fn job(section: &str, lines: &str) -> String {
    let given = |name: &str, key: &str| section == name && lines.contains(key);
    let more = |name: &str| {
        let mut text = String::new();
        for (of, key, line) in [
            ("inputs.in", "topics", "topics = [\"a\"]\n"),
            ("functions.score", "url", "url = \"http://h/score\"\n"),
            ("outputs.out", "type", "type = \"http\"\nurl = \"http://h\"\n"),
        ] {
            if of == name && !given(name, key) {
                text.push_str(line);
            }
        }
        if section == name {
            text.push_str(lines);
        }
        text
    };
    SECTIONS.iter().map(|(name, text)| format!("[{name}]\n{text}{}\n", more(name))).collect()
}

#[test]
fn what_follows_from_a_mistake_is_no_second_one() {
    for (section, lines, words) in [
        ("outputs.out", "success = [200]", "`success` has the wrong form"),
        ("outputs.out", "success = [\"2xx\", 409]", "`success` has the wrong form"),
        ("outputs.out", "success = []", "`success` is empty"),
        ("inputs.in", "topics = [7]", "`topics` has the wrong form"),
        ("inputs.in", "topics = 7", "`topics` has the wrong form"),
        ("inputs.in", "format = \"cvs\"\ndelimiter = \";\"\ncolumns = [\"a\"]", "did you mean \"csv\"?"),
        ("inputs.in", "format = \"csv\"\ncolumns = [7]", "`columns` has the wrong form"),
        ("inputs.in", "compression = \"gzp\"\nunpacked_bytes_max = \"1MiB\"", "did you mean \"gzip\"?"),
        ("inputs.table", "format = \"cvs\"\ndelimiter = \";\"", "did you mean \"csv\"?"),
        ("functions.local", "lookup = [7]", "`lookup` has the wrong form"),
        ("functions.local", "lookup = 7", "`lookup` has the wrong form"),
        ("functions.local", "lookup = []", "`lookup` names no input"),
        ("functions.local", "imports = [\"stat\"]\nstate_bytes_max = \"1MiB\"", "did you mean \"state\"?"),
        ("functions.score", "input_kind = \"array\"\ninput_path = [7]", "`input_path` has the wrong form"),
        (
            "functions.score",
            "max_batch_count = \"500\"\nparallel_requests = 200",
            "`max_batch_count` has the wrong form",
        ),
        ("functions.score", "url = \"http:///score\"", "the address has no host"),
        ("outputs.out", "type = \"http\"\nurl = \"https:///rows\"", "the address has no host"),
        (
            "outputs.out",
            "type = \"http\"\nurl = \"http://127.0.0.1/#x\"",
            "what follows `#` in an address is never sent",
        ),
        ("outputs.out", "type = \"http\"\nurl = \"http://127.0.0.1:0/\"", "nothing can be reached at port 0"),
        ("outputs.out", "type = \"mqtt\"\ntopic = \"t\"\nurl = \"mqtts://h:0\"", "nothing can be reached at port 0"),
        ("functions.score", "url = \"https://h:0/score\"", "nothing can be reached at port 0"),
        (
            "functions.score",
            "url = \"http://h\"\nswagger_url = \"http://h/#s\"",
            "what follows `#` in an address is never sent",
        ),
        (
            "outputs.out",
            "type = \"file\"\npath = \"a\"\nrotate_bytes = 1\nkeep_files = 2",
            "`rotate_bytes` has the wrong form",
        ),
        (
            "outputs.out",
            "type = \"file\"\npath = \"a\"\nfsync = \"intervall\"\nfsync_interval = \"1s\"",
            "did you mean \"interval\"?",
        ),
        ("outputs.out", "type = \"mqtt\"\ntopic = \"t\"\nconnection = 5", "`connection` has the wrong form"),
        ("outputs.out", "type = \"mqtt\"\ntopic = \"t\"\nconnection = \"\"", "expected a text that is not empty"),
        ("journal", "max_bytes = \"10TBB\"\ndead_letters_max_bytes = \"2GiB\"", "`max_bytes` has the wrong form"),
        ("metrics", "allow_remote = 1\nlisten = \"0.0.0.0:9464\"", "`allow_remote` has the wrong form"),
        (
            "inputs.in",
            "payload_bytes_max = \"1TB B\"\nunacked_bytes_max = \"64KiB\"",
            "`payload_bytes_max` has the wrong form",
        ),
    ] {
        let said = refused_once("job.toml", &job(section, lines));
        assert!(said.contains(words), "{lines}: {said}");
    }
    let good = job::parse(&job("job", ""), Path::new("job.toml"));
    assert!(good.is_ok(), "{}", good.unwrap_err());
}

#[test]
fn text_that_is_no_toml_is_told_once() {
    for lines in [
        "password: \"x\"",
        "password =\n\"x\"",
        "password \"x\"",
        "password = x",
        "password = \"x",
        "password = 'x",
        "password = \"x\" y",
        "password = { env = \"x\"",
        "password = {\nenv = \"x\"\nusername = \"u\"",
        "topics = [\"a\", \"b\"",
        "topics = [\"a\" \"b\"]",
        "topics = \"a\"]",
        "= 5",
        "[inputs.in",
        "inputs.in]",
    ] {
        let said = refused_once("job.toml", &job("inputs.in", lines));
        assert!(said.contains("job file is TOML"), "{lines}: {said}");
    }
    let two = format!("{}{}", job("job", "key: 1"), job("outputs.out", "key: 2"));
    let said = job::parse(&two, Path::new("job.toml")).unwrap_err().to_string();
    assert_eq!(said.matches("the job file is TOML").count(), 2, "mistakes far from one another are both told: {said}");
}

#[test]
fn an_empty_text_where_one_is_needed_says_what_to_write() {
    for (section, lines, help) in [
        ("outputs.out", "type = \"mqtt\"\nurl = \"mqtt://h\"\ntopic = \"\"", "write `topic = \"taxi/scored\"`"),
        ("outputs.out", "type = \"http\"\nurl = \"\"", "write `url = \"https://host/rows\"`"),
        ("outputs.out", "type = \"file\"\npath = \"\"", "write `path = \"scored.jsonl\"`"),
        ("outputs.out", "type = \"\"", "write `type = \"mqtt\"`, `type = \"file\"`"),
        ("inputs.in", "username = \"\"", "leave the key out for its default"),
    ] {
        let said = refused_once("job.toml", &job(section, lines));
        assert!(said.contains("expected a text that is not empty") && said.contains(help), "{lines}: {said}");
    }
}

/// The journal and a file output make their files; where they cannot, `check` says so before a row comes.
#[test]
fn a_file_that_cannot_be_made_is_told_by_check() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("there")).unwrap();
    std::fs::write(folder.path().join("job.asaql"), "SELECT 1 AS a INTO out FROM [in]").unwrap();
    let check = |journal: &str, output: &str| {
        let text = format!(
            "[job]\nname = \"job\"\nquery = \"job.asaql\"\n[journal]\npath = \"{journal}\"\n[inputs.in]\n\
            type = \"mqtt\"\n\
             url = \"mqtt://127.0.0.1\"\ntopics = [\"a\"]\n[outputs.out]\ntype = \"file\"\npath = \"{output}\"\n"
        );
        std::fs::write(folder.path().join("job.toml"), text).unwrap();
        cli(folder.path(), &["check", "job.toml"])
    };
    let (code, said, _) = check("there/job.db", "there/out.jsonl");
    assert_eq!((code, said.contains("folder")), (0, false), "{said}");
    let (code, said, _) = check("gone/job.db", "gone/out.jsonl");
    let told = ["warning: the folder of `path` is not there", "gone is not there: make it before the job starts"];
    assert_eq!((code, told.map(|text| said.matches(text).count())), (0, [1, 1]), "{said}");
    let (code, _, said) = check("there", "there");
    assert_eq!((code, said.matches("there is a folder").count()), (2, 2), "{said}");
}
