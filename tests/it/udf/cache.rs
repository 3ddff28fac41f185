//! Compiled code on disk: it is found again, made again when it is damaged, and not taken from a folder that others
//! write.

use std::os::unix::fs::PermissionsExt;

use super::*;

fn load(dir: &Path) -> Component {
    // an engine of its own, as after a restart
    Component::load(&Engine::new(Some(dir.to_owned())).unwrap(), &built("create_array"), limits()).unwrap()
}

fn only_file(dir: &Path) -> PathBuf {
    let files: Vec<_> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    files[0].clone()
}

#[test]
fn compiled_code_is_found_again_and_works() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("a/private/folder");
    assert_eq!(load(&dir).origin(), Origin::Compiler);
    assert_eq!(std::fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
    let component = Arc::new(load(&dir));
    assert_eq!(component.origin(), Origin::Cache);
    let row = [1, 2, 3, 4, 5].map(Value::BigInt);
    let mut host = Host::new(&bind(&component, &["createArray"])).unwrap();
    assert_eq!(host.call(0, &row, NOW).unwrap().to_json(), r#"["1","2","3","4","5"]"#);
}

#[test]
fn damaged_code_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    load(dir.path());
    let file = only_file(dir.path());
    let whole = std::fs::read(&file).unwrap();
    for broken in [&whole[..whole.len() / 2], &whole[..10], b""] {
        std::fs::write(&file, broken).unwrap();
        assert_eq!(load(dir.path()).origin(), Origin::Compiler, "{} bytes", broken.len());
        assert_eq!(load(dir.path()).origin(), Origin::Cache);
    }
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    std::fs::write(&file, flipped).unwrap();
    assert_eq!(load(dir.path()).origin(), Origin::Compiler);
    assert_eq!(std::fs::read(only_file(dir.path())).unwrap(), whole);
}

#[test]
fn a_folder_that_others_may_write_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    for _ in 0..2 {
        assert_eq!(load(dir.path()).origin(), Origin::Compiler);
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}
