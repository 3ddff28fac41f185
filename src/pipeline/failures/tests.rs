use super::*;
use crate::journal::{Counter, Edge, what};

/// A job whose ledger grows second by second.
struct Bench {
    clock: Clock,
    ledger: Ledger,
    failures: Failures,
    second: u64,
    told: Vec<String>,
}

const LOOK: &str = "look: forebay journal dead-letters ls --job /jobs/taxi.toml";

impl Bench {
    fn new() -> Bench {
        let clock = Clock::manual(Timestamp::parse("2026-05-01T10:00:00Z").unwrap());
        let mut ledger = Ledger::default();
        ledger.add(Counter::new(Edge::Statement, "scored", what::FAILED).because("conversion"), 1_000);
        let failures = Failures::of(Path::new("/jobs/taxi.toml"), &ledger, clock.monotonic());
        Bench { clock, ledger, failures, second: 0, told: Vec::new() }
    }

    fn add(&mut self, edge: Edge, name: &str, what: &'static str, reason: &'static str, n: u64) {
        self.ledger.add(Counter::new(edge, name, what).because(reason), n);
    }

    fn pass(&mut self, seconds: u64) -> &mut Bench {
        for _ in 0..seconds {
            self.clock.advance(Duration::from_secs(1));
            self.second += 1;
            let lines = self.failures.look(&self.ledger, &self.clock);
            self.told.extend(lines.into_iter().map(|line| format!("{}: {}: {}", self.second, line.stage, line.text)));
        }
        self
    }

    fn note(&self, stage: &str, reason: &str, message: &str) {
        let letter = DeadLetter {
            stage: stage.into(),
            reason: reason.into(),
            message: message.to_owned(),
            ..DeadLetter::default()
        };
        self.failures.note(&[letter]);
    }

    fn gauges(&self) -> Vec<(String, f64)> {
        let mut samples = Vec::new();
        self.failures.samples("taxi", &mut samples);
        samples.into_iter().map(|sample| (sample.labels[1].1.clone(), sample.value)).collect()
    }
}

#[test]
fn nothing_is_told_while_nothing_fails() {
    let mut bench = Bench::new();
    bench.pass(10);
    bench.add(Edge::Statement, "scored", what::EVALUATED, "", 1_000);
    bench.add(Edge::Statement, "scored", what::FILTERED, "", 1_000);
    bench.pass(120);
    assert_eq!(bench.told, Vec::<String>::new());
    assert_eq!(bench.failures.degraded(), Vec::<String>::new());
    assert_eq!(bench.gauges(), [("statement scored".to_owned(), 0.0)], "it failed in an earlier run");
}

#[test]
fn a_line_at_once_and_one_a_minute_by_stage_and_reason() {
    let mut bench = Bench::new();
    for second in 0..=120 {
        bench.add(Edge::Statement, "scored", what::EVALUATED, "", 100);
        bench.add(Edge::Statement, "scored", what::FAILED, "conversion", 1);
        bench.note("statement scored", "conversion", &format!("no number {second}"));
        bench.add(Edge::Input, "rides", what::STORED, "", 100);
        if second == 30 {
            bench.add(Edge::Input, "rides", what::UNDECODABLE, "undecodable", 2);
            bench.note("input rides", "undecodable", "no JSON (topic t/1)");
        }
        bench.pass(1);
    }
    let conversion = |at: u64, rows: u64, first: u64| {
        format!(
            "{at}: statement scored: rows fail: {rows} (conversion), first: no number {first}; correct the query \
             (TRY_CAST gives NULL) or who sends, then replay them; {LOOK} --statement scored --reason conversion"
        )
    };
    let undecodable = format!(
        "31: input rides: payloads, or parts of them, are no events: 2 (undecodable), first: no JSON (topic t/1); \
         correct who sends, or format and compression of the input; {LOOK} --stage 'input rides' --reason undecodable"
    );
    assert_eq!(bench.told, [conversion(1, 1, 0), undecodable, conversion(61, 60, 1), conversion(121, 60, 61)]);
    bench.told.clear();
    bench.pass(300);
    assert_eq!(bench.told, Vec::<String>::new(), "all are told");
}

#[test]
fn a_stage_of_which_every_row_fails_is_told_at_its_beginning_and_its_end() {
    let failing = [
        (Edge::Input, "rides", what::UNDECODABLE, "undecodable", what::STORED, "input rides"),
        (Edge::Statement, "scored", what::FAILED, "late", what::EVALUATED, "statement scored"),
        (Edge::Statement, "scored", what::FAILED, "udf_trap", what::EVALUATED, "statement scored"),
        (Edge::Statement, "scored/score", what::FAILED, "rejected", what::EVALUATED, "statement scored (score)"),
        (Edge::Statement, "scored/answers", what::FAILED, "overflow", what::EVALUATED, "statement scored (answers)"),
        (Edge::Statement, "sums", "failed_derived", "overflow", what::ROWS_OUT, "statement sums (made)"),
        (Edge::Output, "alerts", what::DEAD_LETTERED, "", what::DELIVERED, "output alerts"),
    ];
    for (edge, name, bad, reason, good, stage) in failing {
        let mut bench = Bench::new();
        // what a WHERE left out hides nothing
        bench.add(Edge::Statement, "scored", what::FILTERED, "", 1_000_000);
        bench.add(edge, name, bad, reason, 5);
        bench.pass(1);
        let told = bench.told.iter().filter(|told| told.contains(" fail: all of the last 5 ")).count();
        assert_eq!(told, 1, "{stage}: {:?}", bench.told);
        assert!(bench.gauges().contains(&(stage.to_owned(), 1.0)), "{stage}: {:?}", bench.gauges());
        let degraded = bench.failures.degraded();
        let begins = format!("{stage}: most ");
        let words = "fail since 2026-05-01T10:00:01.0000000Z: all of the last 5 ";
        assert!(degraded.len() == 1 && degraded[0].starts_with(&begins), "{degraded:?}");
        assert!(degraded[0].contains(words), "{degraded:?}");
        bench.told.clear();
        bench.add(edge, name, good, "", 1);
        bench.pass(59);
        assert_eq!(bench.told, Vec::<String>::new(), "{stage}: of the last minute most failed");
        bench.pass(1);
        assert!(bench.told[0].contains("go through again after 60 s: 5 failed"), "{stage}: {:?}", bench.told);
        assert_eq!(bench.failures.degraded(), Vec::<String>::new(), "{stage}");
        assert!(bench.gauges().contains(&(stage.to_owned(), 0.0)));
    }
}

#[test]
fn what_somebody_wants_is_no_failure() {
    let mut bench = Bench::new();
    // one row may have several expressions
    bench.add(Edge::Statement, "scored", "nulled", "conversion", 120);
    bench.add(Edge::Statement, "scored", what::EVALUATED, "", 100);
    bench.add(Edge::Input, "rides", what::DROPPED, "empty", 50);
    bench.pass(120);
    assert_eq!((bench.told.as_slice(), bench.failures.degraded()), (&[][..], Vec::new()));
}

#[test]
fn the_command_is_one_that_a_shell_takes() {
    assert!(remedy::command(Path::new("/my jobs/it's.toml")).ends_with("--job '/my jobs/it'\\''s.toml'"));
}

#[test]
fn an_example_is_short_and_of_the_stage_whatever_part_of_it_failed() {
    let mut bench = Bench::new();
    bench.note("statement scored (score)", "rejected", &"x".repeat(10_000));
    bench.add(Edge::Statement, "scored/score", what::EVALUATED, "", 100);
    bench.add(Edge::Statement, "scored/score", what::FAILED, "rejected", 1);
    bench.pass(1);
    assert!(bench.told[0].contains(&format!("first: {}…;", "x".repeat(EXAMPLE_CHARS))), "{:?}", bench.told);
    assert!(bench.told[0].contains("--statement scored --reason rejected"), "{:?}", bench.told);
}
