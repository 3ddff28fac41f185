//! The arrival clock by hands that the test moves.

use proptest::prelude::*;

use super::*;

const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;

fn moment() -> Timestamp {
    Timestamp::parse("2026-06-01T12:00:00Z").unwrap()
}

/// A clock of a machine that is `behind` the right time by so many seconds, and the job's.
fn clocks(wall: Timestamp, last: Timestamp) -> (Clock, ArrivalClock) {
    let clock = Clock::manual(wall);
    (clock.clone(), ArrivalClock::new(clock, last))
}

fn step(clock: &Clock, seconds: i64) {
    clock.set(clock.now().saturating_add(seconds * TICKS_PER_SECOND));
}

/// Seconds of arrival time after [`moment`], and whether the clock is trusted.
fn told(arrival: &ArrivalClock) -> (f64, bool) {
    let ArrivalTime { at, is_trusted, .. } = arrival.now();
    ((at.ticks() - moment().ticks()) as f64 / TICKS_PER_SECOND as f64, is_trusted)
}

/// Lets so many seconds pass, looked at twice a second as a consumer does; gives how it ends.
fn pass(clock: &Clock, arrival: &ArrivalClock, seconds: u64) -> (f64, bool) {
    for _ in 0..seconds * 2 {
        clock.advance(Duration::from_millis(500));
        arrival.now();
    }
    told(arrival)
}

#[test]
fn a_clock_that_is_right_is_arrival_time() {
    let (clock, arrival) = clocks(moment(), Timestamp::MIN);
    assert_eq!(told(&arrival), (0.0, true));
    assert_eq!(pass(&clock, &arrival, 1_000), (1_000.0, true));
    // nobody looked for a day: monotonic time has passed as well
    clock.advance(Duration::from_secs(DAY as u64));
    assert_eq!(told(&arrival), (1_000.0 + DAY as f64, true));
    assert_eq!(arrival.status(), ClockStatus { trouble: None, offset_seconds: 0.0 });
    // as NTP sets it: taken at once
    step(&clock, 200);
    assert_eq!(told(&arrival), (1_200.0 + DAY as f64, true));
}

#[test]
fn a_clock_that_is_a_little_behind_is_waited_for_at_half_speed() {
    for at_start in [false, true] {
        let last = moment().saturating_add(30 * TICKS_PER_SECOND);
        let (clock, arrival) = clocks(if at_start { moment() } else { last }, last);
        if !at_start {
            assert_eq!(told(&arrival), (30.0, true));
            step(&clock, -30);
        }
        assert_eq!(told(&arrival), (30.0, false), "more than 5 s behind");
        assert!(arrival.status().trouble.unwrap().contains("half speed"), "{:?}", arrival.status());
        assert_eq!(arrival.status().offset_seconds, -30.0);
        assert_eq!(pass(&clock, &arrival, 40), (50.0, false));
        assert_eq!(pass(&clock, &arrival, 10), (55.0, true), "5 s ahead of a clock that says 50");
        assert_eq!(pass(&clock, &arrival, 10), (60.0, true));
        assert_eq!(pass(&clock, &arrival, 10), (70.0, true));
    }
}

#[test]
fn a_clock_far_behind_is_not_trusted_and_arrival_time_goes_on() {
    for at_start in [false, true] {
        let (clock, arrival) = match at_start {
            false => clocks(moment(), Timestamp::MIN),
            true => clocks(moment().saturating_add(-5 * HOUR * TICKS_PER_SECOND), moment()),
        };
        if !at_start {
            step(&clock, -5 * HOUR);
        }
        assert_eq!(told(&arrival), (0.0, false));
        assert_eq!(pass(&clock, &arrival, 600), (600.0, false));
        let trouble = arrival.status().trouble.unwrap();
        assert!(trouble.contains("5.0 h behind") && trouble.contains("check NTP"), "{trouble}");
        // what was wrong is set right: nothing has happened
        step(&clock, 5 * HOUR);
        assert_eq!(told(&arrival), (600.0, true));
    }
}

#[test]
fn a_jump_ahead_is_trusted_after_a_minute_and_forgotten_when_it_is_taken_back() {
    let (clock, arrival) = clocks(moment(), Timestamp::MIN);
    step(&clock, 400 * DAY);
    assert_eq!(told(&arrival), (0.0, false));
    assert!(arrival.status().trouble.unwrap().contains("jumped 400.0 days ahead"), "{:?}", arrival.status());
    assert_eq!(pass(&clock, &arrival, 50), (50.0, false));
    step(&clock, -400 * DAY);
    assert_eq!(told(&arrival), (50.0, true));

    step(&clock, HOUR);
    assert_eq!(pass(&clock, &arrival, 50), (100.0, false));
    // a further jump: it has to run evenly from here
    step(&clock, HOUR);
    arrival.now();
    assert_eq!(pass(&clock, &arrival, 59), (159.0, false));
    assert_eq!(pass(&clock, &arrival, 1), (160.0 + 2.0 * HOUR as f64, true));
    assert_eq!(arrival.status(), ClockStatus { trouble: None, offset_seconds: 0.0 });
}

#[test]
fn a_new_pool_in_1970_begins_at_the_build_date_and_leaps_ten_seconds_after_the_correction() {
    let (clock, arrival) = clocks(Timestamp::parse("1970-01-01T00:00:07Z").unwrap(), Timestamp::MIN);
    assert_eq!(arrival.now(), ArrivalTime { at: BUILT, era: 0, is_trusted: false });
    assert!(arrival.status().trouble.unwrap().contains("before this version was made"), "{:?}", arrival.status());
    pass(&clock, &arrival, 100);
    assert_eq!(
        arrival.now(),
        ArrivalTime { at: BUILT.saturating_add(100 * TICKS_PER_SECOND), era: 0, is_trusted: false }
    );
    clock.set(moment());
    assert!(!arrival.now().is_trusted);
    assert!(!pass(&clock, &arrival, 9).1);
    assert_eq!(pass(&clock, &arrival, 1), (10.0, true));
}

#[test]
fn a_pool_that_is_ahead_of_its_clock_leaps_ten_seconds_after_the_correction() {
    let (clock, arrival) = clocks(moment().saturating_add(-9 * DAY * TICKS_PER_SECOND), moment());
    assert_eq!(told(&arrival), (0.0, false));
    assert!(arrival.status().trouble.unwrap().contains("behind the newest event of the pool"));
    pass(&clock, &arrival, 5);
    clock.set(moment().saturating_add(HOUR * TICKS_PER_SECOND));
    arrival.now();
    assert_eq!(pass(&clock, &arrival, 9), (14.0, false));
    assert_eq!(pass(&clock, &arrival, 1), (HOUR as f64 + 10.0, true));
}

#[test]
fn a_start_takes_a_clock_that_is_ahead_of_the_pool() {
    let (_, arrival) = clocks(moment(), moment().saturating_add(-30 * DAY * TICKS_PER_SECOND));
    assert_eq!(told(&arrival), (0.0, true));
}

/// What the job does each second: arrival time is set back if it is to be.
fn set_back(arrival: &ArrivalClock) -> bool {
    let Some(way) = arrival.way_back() else { return false };
    let mut eras = way.eras.clone();
    eras.begin(7, way.to, way.from);
    arrival.begin_era(&way, eras);
    true
}

#[test]
fn a_jump_that_was_trusted_is_taken_back_ten_seconds_after_the_correction() {
    let (clock, arrival) = clocks(moment(), Timestamp::MIN);
    step(&clock, 400 * DAY);
    arrival.now();
    assert_eq!(pass(&clock, &arrival, 60), (60.0 + 400.0 * DAY as f64, true));
    step(&clock, -400 * DAY);
    arrival.now();
    assert!(!pass(&clock, &arrival, 9).1 && !set_back(&arrival));
    assert!(arrival.status().trouble.unwrap().contains("is set back when the clock has run evenly for 10 s"));
    pass(&clock, &arrival, 1);
    assert!(set_back(&arrival));
    let now = arrival.now();
    assert_eq!((told(&arrival), now.era), ((70.0, true), 1));
    assert_eq!(pass(&clock, &arrival, 10), (80.0, true));
}

#[test]
fn any_other_clock_far_behind_is_taken_after_a_minute_unless_its_time_was_used() {
    for (behind, is_free) in [(30 * DAY, true), (HOUR, false)] {
        // the pool begins two hours before
        let start = moment().saturating_add(-2 * HOUR * TICKS_PER_SECOND);
        let (clock, arrival) = clocks(start, Timestamp::MIN);
        let eras = arrival.unsaved_eras().unwrap();
        assert_eq!(arrival.unsaved_eras(), Some(eras.clone()), "a pool that refused is told again");
        arrival.saved(&Eras::starting(Timestamp::MAX));
        assert!(arrival.unsaved_eras().is_some(), "it was told of others");
        arrival.saved(&eras);
        assert_eq!(arrival.unsaved_eras(), None);
        pass(&clock, &arrival, 2 * HOUR as u64);
        step(&clock, -behind);
        arrival.now();
        assert!(!pass(&clock, &arrival, 59).1 && !set_back(&arrival));
        pass(&clock, &arrival, 1);
        assert_eq!(set_back(&arrival), is_free);
        let trouble = arrival.status().trouble;
        assert!(is_free || trouble.unwrap().contains("events of the pool have that time already"));
    }
}

#[test]
fn arrival_time_stands_before_a_used_time() {
    let clock = Clock::manual(moment());
    let mut eras = Eras::starting(moment().saturating_add(100 * TICKS_PER_SECOND));
    let until = moment().saturating_add(200 * TICKS_PER_SECOND);
    eras.begin(0, moment(), until);
    let arrival = ArrivalClock::of_pool(clock.clone(), moment(), eras, 10 * TICKS_PER_SECOND);
    assert_eq!(pass(&clock, &arrival, 89), (89.0, true));
    assert_eq!(pass(&clock, &arrival, 50), (90.0, false));
    assert!(arrival.status().trouble.unwrap().contains("stands"), "{:?}", arrival.status());
    assert_eq!(pass(&clock, &arrival, 71), (90.0, false));
    assert_eq!(pass(&clock, &arrival, 1), (211.0, true));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// However the wall clock is set: inside an era arrival time never goes back, and goes on at half speed at least
    /// but before a used time; no moment is used by two eras, or on both sides of a leap; a trusted stamp is near the
    /// wall clock.
    #[test]
    fn arrival_time_goes_on_whatever_the_clock_does(
        from in -DAY..DAY,
        margin in 1i64..1_000,
        steps in prop::collection::vec((prop_oneof![
            6 => Just(0i64),
            2 => -10i64..10,
            2 => -400i64..400,
            3 => -20_000i64..20_000,
            1 => -9_000_000i64..9_000_000,
            1 => Just(-3_000_000_000i64),
            1 => Just(3_000_000_000i64),
        ], 0u64..90_000), 1..30),
    ) {
        let clock = Clock::manual(moment().saturating_add(from * TICKS_PER_SECOND));
        let mut last = moment();
        let mut arrival = ArrivalClock::of_pool(clock.clone(), last, Eras::starting(last), margin);
        let mut before = arrival.now();
        // times that were told, each without a leap
        let mut used: Vec<(Timestamp, Timestamp)> = vec![(last, last)];
        match before.at.ticks() - last.ticks() > NEAR {
            true => used.push((before.at, before.at)),
            false => used[0].1 = before.at,
        }
        for (i, (seconds, millis)) in steps.into_iter().enumerate() {
            step(&clock, seconds);
            arrival.now();
            for _ in 0..2 {
                clock.advance(Duration::from_millis(millis));
                let is_back = set_back(&arrival);
                let now = arrival.now();
                let passed = millis as i64 * 10_000;
                let gained = now.at.ticks() - before.at.ticks();
                prop_assert_eq!(now.era > before.era, is_back);
                let stands = arrival.status().trouble.is_some_and(|t| t.contains("stands"));
                prop_assert!(is_back || stands || gained >= passed / 2, "{gained} in {passed}");
                prop_assert!(is_back || gained >= 0);
                if now.is_trusted {
                    let off = clock.now().ticks() - now.at.ticks();
                    prop_assert!((-SLACK..=0).contains(&off), "{off}");
                    prop_assert!(now.at >= BUILT);
                }
                if is_back || gained > passed + NEAR {
                    used.push((now.at, now.at));
                }
                let (present, earlier) = used.split_last_mut().unwrap();
                present.1 = now.at;
                for (from, to) in earlier {
                    prop_assert!(now.at < *from || now.at > *to, "{now:?} was used");
                }
                (before, last) = (now, now.at);
            }
            if i % 7 == 6 {
                // a restart of a job that stores what it is to store
                let eras = arrival.0.hands.lock().unwrap().eras.clone();
                arrival = ArrivalClock::of_pool(clock.clone(), last, eras, margin);
                let now = arrival.now();
                prop_assert!(now.at >= before.at);
                if now.at.ticks() - before.at.ticks() > NEAR {
                    used.push((now.at, now.at));
                }
                before = now;
            }
        }
    }
}
