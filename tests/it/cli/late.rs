//! What `forebay check` says of order and time: events that wait at the broker for longer than they may be late, and
//! answers that may come in any order.

use expect_test::expect;

use super::{CHECK, JOB, Taxi};

const WINDOWS: &str = "SELECT COUNT(*) AS n INTO scored FROM rides TIMESTAMP BY at GROUP BY TumblingWindow(minute, 1)";

/// What is said behind the estimate of the pool, without the note on the broker's queue.
fn said(place: &Taxi, of_job: &str, of_input: &str, query: &str) -> String {
    let job = JOB.replace("query = \"taxi.asaql\"\n", &format!("query = \"taxi.asaql\"\n{of_job}"));
    let job = job.replace("topics = [\"taxi/+/rides\"]\n", &format!("topics = [\"taxi/+/rides\"]\n{of_input}"));
    place.write("taxi.toml", &job).write("taxi.asaql", query);
    let answer = place.answer(&CHECK);
    let (_, behind) = answer.split_once("take room beside them\n").unwrap_or_else(|| panic!("{answer}"));
    let queue = "\nnote: while this gateway is away the broker keeps its messages only as far as its own queue limit \
                 goes;\n      mosquitto keeps 1,000 for a client unless max_queued_messages is raised\n";
    assert!(behind.contains(queue), "{answer}");
    behind.replace(queue, "").replace("\nthe job is valid\n", "")
}

#[test]
fn an_input_whose_session_outlives_the_default_tolerance_is_a_warning() {
    let place = Taxi::new();
    expect![[r#"

        warning: after an outage of over 5s rows of `rides` differ from those without it
          --> taxi.toml:8:9
           |
         8 | [inputs.rides]
           |         ^^^^^ events wait at the broker for up to 7d; those that come over 5s late are moved in time
           = help: set `late_tolerance` in [job] to the longest outage that shall leave no trace, such as "1h": windows of devices that fall silent close so much later; or write "5s" if that is what you want
    "#]].assert_eq(&said(&place, "", "", WINDOWS));
    expect![[r#"

        warning: after an outage of over 5s rows of `rides` differ from those without it
          --> taxi.toml:9:9
           |
         9 | [inputs.rides]
           |         ^^^^^ events wait at the broker for as long as it takes; those that come over 5s late are dropped
           = help: set `late_tolerance` in [job] to the longest outage that shall leave no trace, such as "1h": windows of devices that fall silent close so much later; or write "5s" if that is what you want
    "#]].assert_eq(&said(
        &place,
        "out_of_order_policy = \"drop\"\n",
        "session_expiry = \"forever\"\n",
        WINDOWS,
    ));
}

#[test]
fn a_tolerance_that_somebody_chose_is_a_note() {
    let place = Taxi::new();
    expect![[r#"

        note: rows of `rides` are those without an outage up to late_tolerance = "1h":
              events wait at the broker for up to 7d; those that come over 1h late are moved in time
    "#]]
    .assert_eq(&said(&place, "late_tolerance = \"1h\"\n", "", WINDOWS));
}

#[test]
fn nothing_is_said_where_no_row_would_be_another_one() {
    let place = Taxi::new();
    let of_arrival = WINDOWS.replace(" TIMESTAMP BY at", "");
    let stateless = "SELECT distance INTO scored FROM rides TIMESTAMP BY at";
    let drop = "out_of_order_policy = \"drop\"\n";
    for (of_job, of_input, query) in [
        ("", "", of_arrival.as_str()),
        (drop, "", &of_arrival),
        ("", "", stateless),
        ("late_tolerance = \"7d\"\n", "", WINDOWS),
        ("late_tolerance = \"forever\"\n", "session_expiry = \"forever\"\n", WINDOWS),
        ("", "session_expiry = \"5s\"\n", WINDOWS),
        ("", "qos = 0\n", WINDOWS),
    ] {
        assert_eq!(said(&place, of_job, of_input, query), "", "{of_job}{of_input}{query}");
    }
    for (of_job, of_input, query) in [
        (drop, "", stateless),
        ("", "", "SELECT System.Timestamp() AS at INTO scored FROM rides TIMESTAMP BY at"),
        ("", "session_expiry = \"6s\"\n", WINDOWS),
        ("", "protocol = \"3.1.1\"\n", WINDOWS),
    ] {
        let said = said(&place, of_job, of_input, query);
        assert!(said.starts_with("\nwarning: after an outage of over 5s"), "{of_job}{of_input}{query}: {said}");
    }
}

#[test]
fn answers_in_any_order_are_none_for_a_statement_that_keeps_state() {
    let place = Taxi::new();
    let job = JOB.replace("key = \"env:AML_KEY\"\n", "key = \"env:AML_KEY\"\norder = \"none\"\n");
    place.write("taxi.toml", &job);
    let score = "SELECT udf.score(udf.createArray(vendorid, weekday, pickuphour, passenger, distance)) AS fare";
    let warning = "warning: the statement INTO scored keeps its rows in the order of the stream";
    for (query, is_warned) in [
        (format!("{score} INTO scored FROM rides"), false),
        (format!("{score} INTO scored FROM rides TIMESTAMP BY at"), true),
        (
            format!(
                "WITH s AS ({score} FROM rides) \
                 SELECT MAX(fare) AS fare INTO scored FROM s GROUP BY TumblingWindow(minute, 1)"
            ),
            true,
        ),
    ] {
        place.write("taxi.asaql", &query);
        let answer = place.answer(&CHECK);
        assert_eq!(answer.contains(warning), is_warned, "{query}: {answer}");
        assert_eq!(answer.contains("a request that hangs holds it up"), is_warned, "{answer}");
        assert!(answer.contains("the job is valid"), "{answer}");
    }
}
