//! A new version on trial, in executors by hand.

use std::path::Path;
use std::sync::{Arc, LazyLock};

use forebay::time::Timestamp;
use forebay::udf::{Component, Engine, FunctionBinding, Host, Limits, UserFunctions, Versions};
use forebay::value::Value;

use super::{another, picky, trapping, version};

static ENGINE: LazyLock<Engine> = LazyLock::new(|| Engine::new(None).unwrap());

struct Trial {
    binding: FunctionBinding,
    versions: Versions,
    hosts: Vec<Host>,
}

impl Trial {
    fn new(wasm: &[u8]) -> Trial {
        let component = Arc::new(Component::from_bytes(&ENGINE, Path::new("f.wasm"), wasm, Limits::default()).unwrap());
        let binding = FunctionBinding::new(component, 0, "f");
        let versions = Versions::new(std::slice::from_ref(&binding));
        let hosts = (0..3).map(|_| Host::following(&versions).unwrap()).collect();
        Trial { binding, versions, hosts }
    }

    fn swap(&mut self, wasm: &[u8]) {
        self.versions.swap(vec![(0, self.binding.renewed(wasm, "f").unwrap())]);
    }

    fn commit(&mut self) {
        self.hosts.iter_mut().for_each(Host::take_versions);
    }

    fn ask(&mut self, host: usize, x: i64) -> String {
        match self.hosts[host].call(0, &[Value::BigInt(x)], Timestamp::MIN) {
            Ok(value) => value.to_json(),
            Err(error) => error.reason.to_owned(),
        }
    }

    fn counts(&self) -> (u64, u64) {
        let status = &self.versions.statuses()[0].1;
        (status.swapped, status.put_back)
    }
}

#[test]
fn an_executor_changes_only_when_it_asks() {
    let mut trial = Trial::new(&version(1));
    trial.swap(&version(2));
    assert_eq!(trial.ask(0, 0), "1");
    trial.hosts[0].take_versions();
    assert_eq!([trial.ask(0, 0), trial.ask(1, 0)], ["2", "1"]);
    trial.commit();
    assert_eq!(trial.ask(1, 0), "2");
}

#[test]
fn faults_in_all_executors_together_put_a_version_back() {
    let mut trial = Trial::new(&version(1));
    trial.swap(&trapping());
    trial.commit();
    for round in 0..4 {
        assert_eq!(trial.ask(round % 2, 0), "1", "the former version answers");
        assert_eq!(trial.counts(), (1, 0));
    }
    assert_eq!(trial.ask(0, 0), "1");
    assert_eq!(trial.counts(), (1, 1));
    // also where it was never called, before and after the next commit
    assert_eq!([trial.ask(0, 0), trial.ask(1, 0), trial.ask(2, 0)], ["1", "1", "1"]);
    trial.commit();
    assert_eq!([trial.ask(0, 0), trial.ask(1, 0), trial.ask(2, 0)], ["1", "1", "1"]);
    assert_eq!(trial.counts(), (1, 1));
}

#[test]
fn one_call_that_comes_through_ends_the_trial() {
    let mut trial = Trial::new(&version(1));
    trial.swap(&picky(2, 13));
    trial.commit();
    assert_eq!(trial.ask(0, 13), "1", "a fault before that is answered by the former version");
    assert_eq!(trial.ask(0, 0), "2");
    for _ in 0..20 {
        assert_eq!([trial.ask(0, 13), trial.ask(1, 13)], ["udf_trap", "udf_trap"], "and after it is the row's error");
    }
    assert_eq!(trial.counts(), (1, 0));
}

#[test]
fn a_row_that_is_too_much_for_both_says_nothing_against_the_new_one() {
    let mut trial = Trial::new(&picky(1, 13));
    trial.swap(&picky(2, 13));
    trial.commit();
    for _ in 0..20 {
        assert_eq!(trial.ask(0, 13), "udf_trap");
    }
    assert_eq!(trial.ask(0, 0), "2");
    assert_eq!(trial.counts(), (1, 0));
}

#[test]
fn a_version_that_never_passed_is_none_to_go_back_to() {
    let mut trial = Trial::new(&version(1));
    trial.swap(&trapping());
    trial.commit();
    assert_eq!(trial.ask(0, 0), "1");
    trial.swap(&another(trapping()));
    trial.commit();
    for _ in 0..6 {
        assert_eq!(trial.ask(0, 0), "1");
    }
    assert_eq!(trial.counts(), (2, 1));
}
