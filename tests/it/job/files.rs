//! Files that a job names: `job::load` looks for them beside the job file.

use expect_test::expect;
use forebay::job;

use super::SMALL;

#[test]
fn files_that_do_not_exist_are_told_by_load() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("taxi.toml");
    std::fs::write(&path, SMALL).expect("written");
    std::fs::write(folder.path().join("taxi.asaql"), "SELECT * INTO scored FROM rides").expect("written");
    let errors = job::load(&path).expect_err("the component is missing").to_string();
    expect![[r#"
        error: `component` names no file
           --> FOLDER/taxi.toml:13:13
            |
         13 | component = "udfs/create_array.wasm"
            |             ^^^^^^^^^^^^^^^^^^^^^^^^ FOLDER/udfs/create_array.wasm does not exist
            = help: paths are relative to the job file
    "#]]
    .assert_eq(&errors.replace(&folder.path().display().to_string(), "FOLDER"));
    std::fs::create_dir(folder.path().join("udfs")).expect("folder");
    std::fs::write(folder.path().join("udfs/create_array.wasm"), "").expect("written");
    job::load(&path).unwrap_or_else(|errors| panic!("{errors}"));
    let missing = job::load(&folder.path().join("none.toml")).expect_err("no such file").to_string();
    expect![[r#"
        error: the job file cannot be read: No such file or directory (os error 2)
          --> FOLDER/none.toml
           = help: check the path and its permissions
    "#]]
    .assert_eq(&missing.replace(&folder.path().display().to_string(), "FOLDER"));
}
