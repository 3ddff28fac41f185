use super::*;
use proptest::prelude::*;

fn parts(payload: &str) -> (Vec<String>, Vec<(usize, String)>) {
    let split = split(&Bytes::copy_from_slice(payload.as_bytes()));
    let events = split.events.iter().map(|e| String::from_utf8(e.to_vec()).unwrap()).collect();
    (events, split.bad.into_iter().map(|b| (b.position, b.error)).collect())
}

#[test]
fn objects_arrays_and_lines_are_told_apart() {
    assert_eq!(parts(" {\"a\" : 1}\n").0, ["{\"a\" : 1}"]);
    assert_eq!(parts("\u{feff}{}").0, ["{}"]);
    assert_eq!(parts("[{\"a\":1} , {\"b\":[1,{}]}]").0, ["{\"a\":1}", "{\"b\":[1,{}]}"]);
    assert_eq!(parts("{\"a\":1}\r\n\n{\"a\":2}\n").0, ["{\"a\":1}", "{\"a\":2}"]);
    assert_eq!(parts("{\n \"a\":\n 1\n}").0.len(), 1, "an indented object is one event");
    assert_eq!(parts("[]"), (vec![], vec![]));
}

#[test]
fn a_bad_element_or_line_is_bad_alone() {
    let (events, bad) = parts("[{\"a\":1},7,{\"a\":99999999999999999999},{\"a\":2}]");
    assert_eq!(events, ["{\"a\":1}", "{\"a\":2}"]);
    assert_eq!(bad[0], (9, "an element of the array is not a JSON object".to_owned()));
    assert_eq!(bad[1], (11, "a whole number does not fit 64 bits".to_owned()));
    let (events, bad) = parts("{\"a\":1}\nnoise\n{\"a\":2}");
    assert_eq!(events.len(), 2);
    assert_eq!(bad[0].0, 8);
}

#[test]
fn several_objects_may_follow_one_another() {
    assert_eq!(parts("{\"a\":1}{\"a\":2} {\"a\":3}").0, ["{\"a\":1}", "{\"a\":2}", "{\"a\":3}"]);
    assert_eq!(parts("{\n\"a\":1\n}\n{\n\"a\":2\n}\n").0.len(), 2, "also indented ones");
    assert_eq!(parts("{\"a\":1}{\"a\":2}\nnoise\n{\"a\":3}").0.len(), 3, "also on one of several lines");
    let (events, bad) = parts("{\"a\":1} 7 {\"a\":99999999999999999999}");
    assert_eq!(events.len(), 1);
    assert_eq!(
        bad,
        [(8, "an event must be a JSON object".to_owned()), (10, "a whole number does not fit 64 bits".to_owned())]
    );
}

#[test]
fn a_broken_value_does_not_cost_those_beside_it() {
    for (payload, events, places) in [
        (r#"{"a":1}{"a":}{"a":3}"#, &[r#"{"a":1}"#, r#"{"a":3}"#][..], &[7][..]),
        (r#"{"a":}{"a":2} {"a":oops} {"a":4}"#, &[r#"{"a":2}"#, r#"{"a":4}"#], &[0, 14]),
        (r#"{"a":1}{"a":{"b":[}]}}{"a":3}"#, &[r#"{"a":1}"#], &[7]),
        (r#"{"a":1}{"a":"#, &[r#"{"a":1}"#], &[7]),
        (r#"7 {"a":1}"#, &[r#"{"a":1}"#], &[0]),
        ("{} x", &["{}"], &[3]),
        (r#"noise{"a":1}[2]"#, &[r#"{"a":1}"#], &[0, 13]),
        (r#"{"a":1}{"a":},{"a":3}"#, &[r#"{"a":1}"#, r#"{"a":3}"#], &[7]),
        (r#"{"a":1}{"a":2},"b":3}"#, &[r#"{"a":1}"#], &[7]),
        ("{\"a\":1}{\"a\":}\n{\"a\":3}{\"a\":x}\n{\"a\":5}", &[r#"{"a":1}"#, r#"{"a":3}"#, r#"{"a":5}"#], &[7, 21]),
        (r#"[{"a":1},{"a":},{"a":3}]"#, &[r#"{"a":1}"#, r#"{"a":3}"#], &[9]),
        (r#"[oops , {"a":2},NaN]"#, &[r#"{"a":2}"#], &[1, 16]),
        (r#"[{"a":1},,{"a":3}]"#, &[r#"{"a":1}"#, r#"{"a":3}"#], &[9]),
        (r#"[{"a":1},{"a":2}} ,{"a":3}]"#, &[r#"{"a":1}"#, r#"{"a":2}"#, r#"{"a":3}"#], &[16]),
        (r#"[{"a":1},{"a":2} } },"b":{"c":3}]"#, &[r#"{"a":1}"#, r#"{"a":2}"#], &[16]),
        (r#"[{"a":1}}]{"a":2}"#, &[r#"{"a":1}"#, r#"{"a":2}"#], &[8]),
        (r#"[{"a":1}},]"#, &[r#"{"a":1}"#], &[8]),
        (r#"[{"a":1}}],{"a":2}]"#, &[r#"{"a":1}"#], &[8, 11]),
        (r#"[{"a":1},]"#, &[r#"{"a":1}"#], &[8]),
        (r#"{"a":1}}{"a":2}"#, &[r#"{"a":2}"#], &[0]),
        (r#"{"a":1}{"a":2} ] } {"a":3}"#, &[r#"{"a":1}"#, r#"{"a":3}"#], &[7]),
        ("{\"a\":1}}\n{\"a\":2}", &[r#"{"a":2}"#], &[0]),
        (r#"}{"a":2}"#, &[r#"{"a":2}"#], &[0]),
        (r#"{"a":}}}{"a":2}}"#, &[], &[0]),
        (r#"{"a":1}{"a":2}}"#, &[r#"{"a":1}"#], &[7]),
    ] {
        let (found, bad) = parts(payload);
        assert_eq!(found, events, "{payload}");
        assert_eq!(bad.iter().map(|(place, _)| *place).collect::<Vec<_>>(), places, "{payload}: {bad:?}");
    }
    let (_, bad) = parts("[{\"a\":1},\n {\"a\":},\n {\"a\":oops}]");
    let why = |line, column| format!("not valid JSON: expected value at line {line} column {column}");
    assert_eq!(bad, [(11, why(2, 7)), (20, why(3, 7))], "the place is that of the payload");
}

#[test]
fn commas_between_objects_are_let_pass() {
    for (payload, good) in [
        (r#"{"a":1},{"a":2}"#, 2),
        (r#"{"a":1} , {"a":2},{"a":3},"#, 3),
        ("{\"a\":1},\n{\"a\":2},\n{\"a\":3}\n", 3),
        ("{\"a\":1},\n{\"a\":2},\n", 2),
        (r#"{"a":1},[{"a":2},{"a":3}],{"a":4}"#, 4),
    ] {
        let (events, bad) = parts(payload);
        assert_eq!((events.len(), bad), (good, vec![]), "{payload}");
    }
    let (events, bad) = parts(r#"{"a":1},,{"a":2}"#);
    assert_eq!((events.len(), bad.len()), (0, 1));
}

#[test]
fn values_behind_an_array_are_values() {
    for (payload, good, wrong) in [
        ("[{\"n\":9}]\n{\"n\":1}\n{\"n\":2}", 3, 0),
        ("[{\"n\":9}] {\"n\":1}", 2, 0),
        ("[1]\n{\"n\":1}\n{\"n\":2}", 2, 1),
        ("[{\"n\":9}]\n{\"n\":}\n{\"n\":2}", 2, 1),
        ("[{\"n\":9}]\n[1]\n{\"n\":2}", 2, 1),
        ("[{\"n\":9}]\n[1]", 1, 1),
        ("[{\"n\":9}],{\"n\":1}", 2, 0),
        ("[{\"n\":9}],\"n\":{}", 1, 1),
        ("[{\"n\":9}]]{\"n\":1}", 2, 1),
        ("[{\"n\":9}]}", 1, 1),
        ("[{\"n\":9}]],{\"n\":1}", 2, 1),
        ("[{\"n\":9}]\n[{\"n\":1}]\n[{\"n\":2},{\"n\":3}]\n", 4, 0),
        ("[{\"n\":9}][{\"n\":1}],[{\"n\":2}],", 3, 0),
        ("[]\n[{\"n\":1}]\n[]", 1, 0),
        ("[{\"n\":9},{\"n\":}]\n[{\"n\":1}]", 2, 1),
        ("{\"n\":9}\n[{\"n\":1},2]\n{\"n\":3}", 3, 1),
        ("{\"n\":9}[{\"n\":},{\"n\":2}]{\"n\":3}", 3, 1),
        ("{\"n\":9}[[{\"n\":1}]]", 1, 1),
        ("noise [{\"n\":1}]", 1, 1),
        ("[{\"n\":1}]\n[{\"n\":2}\n[{\"n\":3}]", 3, 1),
        ("[{\"n\":1}]\n[{\"n\":2},{\"n\n[{\"n\":3}]\n", 3, 1),
        ("[\n{\"n\":1},\n{\"m\":\n[{\"n\":3}]\n", 1, 1),
        ("{\"n\":9} [{\"n\":1}]] {\"n\":3}", 3, 1),
        ("{\"n\":\"\n[{\"n\":1}]", 1, 1),
    ] {
        let (events, bad) = parts(payload);
        assert_eq!((events.len(), bad.len()), (good, wrong), "{payload}");
    }
}

#[test]
fn what_follows_very_many_bad_parts_is_set_aside_with_the_last() {
    let many = BAD_PARTS_MAX * 50;
    let lone = "{\"a\":}\n{\"b\":1}\n";
    for (payload, good) in [
        (format!("[{}", ",".repeat(many)), 0),
        (format!("[{{}},{}{{}}]", "1,".repeat(many)), 1),
        (format!("{{}} {}{{}}", "x ".repeat(many)), 1),
        (format!("{{}} {}{{}}", "1 ".repeat(many)), 1),
        (lone.repeat(many), BAD_PARTS_MAX - 1),
    ] {
        let split = split(&Bytes::from(payload.clone()));
        assert_eq!((split.events.len(), split.bad.len()), (good, BAD_PARTS_MAX), "{payload:.40}");
        let last = split.bad.last().unwrap();
        assert!(last.error.ends_with("all that follows is set aside with it"), "{}", last.error);
        assert_eq!(last.position + last.payload.len(), payload.trim_end().len(), "{payload:.40}");
    }
}

/// Where each broken value looked at all the text behind it, this would take hours.
#[test]
fn many_broken_values_take_one_walk() {
    for (first, separator, last) in [("[", ",", "]"), ("", " ", "")] {
        let bad = format!("{separator}{{\"a\":}}").repeat(BAD_PARTS_MAX - 1);
        let payload = format!("{first}{{}}{bad}{}{last}", format!("{separator}{{}}").repeat(300_000));
        let (events, bad) = parts(&payload);
        assert_eq!((events.len(), bad.len()), (300_001, BAD_PARTS_MAX - 1));
    }
}

#[test]
fn nothing_inside_of_a_broken_value_is_an_event() {
    for payload in [
        r#"{"a":{"b":1},"c":}"#,
        r#"{"a":{"b":1} {"c":1}"#,
        r#"{"a":1},"b":{"c":2}}"#,
        r#"{"a":1}},"b":{"c":2}}"#,
        "{\"a\":\"one\nline\",\"b\":{\"c\":1}}",
        r#"{"a":"x"y","b":{"c":1}}"#,
        r#""a":{"b":1}"#,
    ] {
        let (events, bad) = parts(payload);
        assert_eq!((events.len(), bad.len()), (0, 1), "{payload}");
    }
}

#[test]
fn behind_a_syntax_error_the_rest_of_an_array_is_bad() {
    let (events, bad) = parts("[{\"a\":1},{\"a\":,{\"a\":2}]");
    assert_eq!(events.len(), 1);
    assert_eq!(bad.len(), 1);
    assert_eq!(bad[0].0, 9);
}

#[test]
fn what_values_cannot_hold_is_refused() {
    let deep = format!("{{\"a\":{}1{}}}", "[".repeat(70), "]".repeat(70));
    let digits = format!("{{\"a\":{}}}", "9".repeat(6000));
    for payload in
        ["", " \n", "7", "null", "{\"a\":1e999}", "{\"a\":\"\\ud800\"}", "{\"a\":01}", "{\"a\":NaN}", &deep, &digits]
    {
        let (events, bad) = parts(payload);
        assert_eq!((events.len(), bad.len()), (0, 1), "{payload:.40}");
    }
    let broken = split(&Bytes::from_static(b"{\"a\":\"\xff\"}"));
    assert_eq!((broken.events.len(), broken.bad.len()), (0, 1), "text must be UTF-8");
}

#[test]
fn the_deepest_allowed_nesting_passes() {
    let payload = format!("{{\"a\":{}1{}}}", "[".repeat(63), "]".repeat(63));
    assert_eq!(parts(&payload).0.len(), 1);
}

proptest! {
    #[test]
    fn every_byte_lies_in_one_event_or_one_bad_part(
        bytes in prop::collection::vec(prop::sample::select(&b"{}[],:\"\n \
        1\xff\x0ca"[..]), 0..60),
    ) {
        let payload = Bytes::from(bytes);
        let split = split(&payload);
        let mut covered = vec![0; payload.len()];
        let events = split.events.iter().map(|e| (e.as_ptr() as usize - payload.as_ptr() as usize, e.len()));
        for (at, len) in events.chain(split.bad.iter().map(|b| (b.position, b.payload.len()))) {
            covered[at..at + len].iter_mut().for_each(|n| *n += 1);
        }
        for (byte, times) in payload.iter().zip(covered) {
            prop_assert!(times == 1 || (times == 0 && b" \n[],".contains(byte)), "{byte} {times}");
        }
        prop_assert!(!payload.is_empty() || split.bad.len() == 1);
    }

    #[test]
    fn good_values_are_events_whatever_is_beside_them(kinds in prop::collection::vec(0..5usize, 1..12)) {
        let text = |(i, kind): (usize, &usize)| match kind {
            0 | 1 => format!("{{\"i\":{i}}}"),
            2 => "{\"i\":}".to_owned(),
            3 => "{\"i\":{\"j\":1},}".to_owned(),
            _ => "oops".to_owned(),
        };
        let items: Vec<String> = kinds.iter().enumerate().map(text).collect();
        let good: Vec<&String> =
            items.iter().zip(&kinds).filter(|(_, kind)| **kind < 2).map(|(item, _)| item).collect();
        let arrays = items.iter().map(|item| format!("[{item}]")).collect::<Vec<_>>();
        for payload in [items.join(" "), format!("[{}]", items.join(" , ")), items.join("\n"), arrays.join("\n")] {
            let (events, bad) = parts(&payload);
            prop_assert_eq!(events.iter().collect::<Vec<_>>(), good.clone(), "{}", payload);
            let all_told = good.is_empty() || bad.len() == items.len() - good.len();
            prop_assert!(all_told && (bad.is_empty() == (good.len() == items.len())), "{payload}: {bad:?}");
        }
    }

    #[test]
    fn every_element_of_an_array_is_counted(good in prop::collection::vec(any::<bool>(), 1..20)) {
        let items: Vec<String> =
            good.iter().enumerate().map(|(i, g)| if *g { format!("{{\"i\":{i}}}") } else { format!("{i}") }).collect();
        let (events, bad) = parts(&format!("[{}]", items.join(", ")));
        prop_assert_eq!(events.len(), good.iter().filter(|g| **g).count());
        prop_assert_eq!(bad.len(), good.iter().filter(|g| !**g).count());
    }
}
