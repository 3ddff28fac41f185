use bytes::Bytes;
use proptest::prelude::*;

use super::place::{LookError, Looked, TablePlace};
use super::*;

const CSV: ReferenceFormat = ReferenceFormat::Csv { delimiter: b',' };

fn load(text: &str, format: ReferenceFormat) -> Result<Vec<String>, String> {
    let bytes = Bytes::copy_from_slice(text.as_bytes());
    let rows = rows(&bytes, format, 3).map_err(|e| e.to_string())?;
    Ok(rows.iter().map(Value::to_json).collect())
}

fn good(text: &str, format: ReferenceFormat) -> Vec<String> {
    load(text, format).unwrap()
}

fn bad(text: &str, format: ReferenceFormat) -> String {
    load(text, format).unwrap_err()
}

#[test]
fn json_is_an_array_or_lines_and_keeps_types() {
    let want = [r#"{"k":1,"v":"x"}"#, r#"{"k":2.5,"v":null}"#];
    assert_eq!(good("[{\"k\":1,\"v\":\"x\"},\n {\"k\":2.5,\"v\":null}]", ReferenceFormat::Json), want);
    assert_eq!(good("\u{feff}{\"k\":1,\"v\":\"x\"}\r\n\n{\"k\":2.5,\"v\":null}\n", ReferenceFormat::Json), want);
    assert!(good("[]", ReferenceFormat::Json).is_empty());
}

#[test]
fn broken_json_is_refused_with_its_line() {
    let json = ReferenceFormat::Json;
    assert_eq!(bad("", json), "it is empty; a table without rows is `[]`, or a line of names in CSV");
    assert_eq!(bad("{\"k\":1}\n{\"k\":}\n", json), "line 2: not valid JSON: expected value at column 6");
    assert_eq!(bad("[{\"k\":1},\n {\"k\":2", json), "line 2: not valid JSON: EOF while parsing an object");
    assert_eq!(bad("\n\n[{\"k\":1},\n {\"k\":2", json), "line 4: not valid JSON: EOF while parsing an object");
    assert_eq!(bad("[{\"k\":1},\n 7]", json), "line 2: an element of the array is not a JSON object");
    assert_eq!(bad("{\"k\":1}\n{\"k\":99999999999999999999}", json), "line 2: a whole number does not fit 64 bits");
    assert_eq!(bad("[{},{},{},{}]", json), "it has more than 3 rows; raise `rows_max`");
    assert_eq!(bad("{}\n{}\n{}\n{}\n", json), "it has more than 3 rows; raise `rows_max`");
}

#[test]
fn csv_has_a_line_of_names_and_texts() {
    assert_eq!(
        good("\u{feff}k, v \r\n1,x\r\n\"2,\n\"\"3\"\"\",\r\n", CSV),
        [r#"{"k":"1","v":"x"}"#, "{\"k\":\"2,\\n\\\"3\\\"\",\"v\":\"\"}"]
    );
    assert_eq!(good("k;v\n1;2,5\n", ReferenceFormat::Csv { delimiter: b';' }), [r#"{"k":"1","v":"2,5"}"#]);
    assert!(good("k,v\n", CSV).is_empty());
    assert_eq!(good("k\n5\" pipe\n", CSV), [r#"{"k":"5\" pipe"}"#], "a quote inside a field is one of its letters");
}

#[test]
fn broken_csv_is_refused_with_its_line() {
    assert_eq!(bad(" \n", CSV), "it is empty; a table without rows is `[]`, or a line of names in CSV");
    assert_eq!(bad("k,v\n1,2\n3\n", CSV), "line 3: 1 field, but the first line names 2");
    assert_eq!(bad("k,v\n1,2,3\n", CSV), "line 2: 3 fields, but the first line names 2");
    assert_eq!(bad("k,k\n1,2\n", CSV), "line 1: two columns are called `k`");
    assert_eq!(bad("k,\n1,2\n", CSV), "line 1: column 2 has no name; the first line names the columns");
    assert_eq!(bad("k\n1\n\"2\n3\n", CSV), "line 3: a quoted field is never closed");
    assert_eq!(bad("k\n1\n2\n3\n4\n", CSV), "it has more than 3 rows; raise `rows_max`");
    let broken = rows(&Bytes::from_static(b"k\nx\n\xff\n"), CSV, 3).unwrap_err();
    assert_eq!(broken.to_string(), "line 3: a field is not UTF-8");
}

#[test]
fn rows_of_nothing_but_delimiters_are_refused() {
    let names: Vec<String> = (0..1000).map(|i| format!("c{i}")).collect();
    let text = format!("{}\n{}", names.join(","), format!("{}\n", ",".repeat(999)).repeat(400));
    let error = rows(&Bytes::from(text), CSV, 1_000_000).unwrap_err();
    assert!(matches!(error, LoadError::Cells { columns: 1000, .. }), "{error}");
}

proptest! {
    #[test]
    fn what_is_written_as_csv_is_read(
        delimiter in prop::sample::select(b",;\t|".to_vec()),
        table in (1usize..5).prop_flat_map(|columns| {
            prop::collection::vec(prop::collection::vec("[a-c\",;|\\t\\n\\r é]{0,6}", columns), 0..8)
        }),
    ) {
        let columns = table.first().map_or(2, Vec::len);
        let mut writer = ::csv::WriterBuilder::new().delimiter(delimiter).from_writer(Vec::new());
        writer.write_record((0..columns).map(|i| format!("c{i}"))).unwrap();
        table.iter().for_each(|row| writer.write_record(row).unwrap());
        let bytes = Bytes::from(writer.into_inner().unwrap());
        let read = rows(&bytes, ReferenceFormat::Csv { delimiter }, 100).unwrap();
        let read: Vec<Vec<String>> = read.iter().map(|row| {
            let Value::Record(record) = row else { panic!("a record") };
            record.iter().map(|(_, v)| if let Value::Text(t) = v { t.to_string() } else { panic!("text") }).collect()
        }).collect();
        prop_assert_eq!(read, table);
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(prop::sample::select(&b"{}[],:\"\n\r 1\xffak;"[..]), 0..60)) {
        for format in [ReferenceFormat::Json, CSV] {
            if let Ok(found) = rows(&Bytes::from(bytes.clone()), format, 5) {
                prop_assert!(found.len() <= 5 && found.iter().all(|row| matches!(row, Value::Record(_))));
            }
        }
    }
}

fn file_input(path: &std::path::Path) -> ReferenceInput {
    ReferenceInput {
        place: ReferencePlace::File(path.to_path_buf()),
        format: ReferenceFormat::Json,
        reload: None,
        bytes_max: 1024,
        rows_max: 10,
    }
}

/// What a look gave, in a word.
async fn look(place: &mut TablePlace) -> String {
    match place.look(false).await {
        Ok(Looked::Bytes(bytes)) => String::from_utf8(bytes.to_vec()).unwrap(),
        Ok(Looked::Same) => "same".to_owned(),
        Ok(Looked::Changing) => "changing".to_owned(),
        Err(LookError::Away(why)) => format!("away: {why}"),
        Err(LookError::Bad(why)) => format!("bad: {why}"),
    }
}

#[tokio::test]
async fn a_file_is_read_again_when_it_changed_and_stays_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("zones.json");
    let mut place = TablePlace::new(&file_input(&path)).unwrap();
    assert!(
        look(&mut place).await.starts_with("away: ")
            && look(&mut place).await.contains("zones.json cannot be read: No such file")
    );
    std::fs::write(&path, "one").unwrap();
    assert_eq!(look(&mut place).await, "changing", "it may still be written");
    assert_eq!(look(&mut place).await, "one");
    assert_eq!(look(&mut place).await, "same");
    std::fs::write(&path, "longer").unwrap();
    assert_eq!(look(&mut place).await, "changing");
    std::fs::write(&path, "longer still").unwrap();
    assert_eq!(look(&mut place).await, "changing", "another state than at the last look");
    assert_eq!(look(&mut place).await, "longer still");
    // renamed into place: another file of the same length
    std::fs::write(folder.path().join("new"), "LONGER STILL").unwrap();
    std::fs::rename(folder.path().join("new"), &path).unwrap();
    assert_eq!((look(&mut place).await, look(&mut place).await), ("changing".to_owned(), "LONGER STILL".to_owned()));
    std::fs::write(&path, "x".repeat(1025)).unwrap();
    assert_eq!(look(&mut place).await, "changing");
    assert_eq!(look(&mut place).await, "bad: it is longer than 1024 bytes; raise `bytes_max`");
    assert_eq!(look(&mut place).await, "same", "it is not read again and again");
}

#[tokio::test]
async fn a_file_that_never_rests_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("zones.json");
    std::fs::write(&path, "").unwrap();
    let mut place = TablePlace::new(&file_input(&path)).unwrap();
    let mut looks = Vec::new();
    for i in 0..40 {
        std::fs::write(&path, "x".repeat(i + 1)).unwrap();
        looks.push(look(&mut place).await);
    }
    assert_eq!(looks[0], "x", "at the start what is there is taken");
    assert_eq!(looks[1], "changing");
    let told = format!("away: {} changes all the time; write a new file beside it and rename it", path.display());
    assert_eq!(looks[35], told);
}

#[test]
fn a_form_reads_back() {
    for format in [ReferenceFormat::Json, CSV, ReferenceFormat::Csv { delimiter: b'\t' }] {
        assert_eq!(format_of(&form(format)), Some(format));
    }
    assert_eq!(format_of("avro"), None);
}
