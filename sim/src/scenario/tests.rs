//! Scenarios survive being written, and bad ones are told what is wrong with them.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::ring0::plan::StateFate;
use crate::ring0::sites::{Site, Strike};
use crate::scenario::parts::time;

fn strike() -> impl Strategy<Value = Strike> {
    let name = "[a-z]{1,8}: [ -~]{0,12}";
    let site = (name, "[ -~]{0,20}", any::<u64>(), any::<u64>()).prop_map(|(fault, at, after, nth)| Site {
        fault,
        at,
        after: Duration::from_nanos(after),
        nth,
    });
    prop_oneof![
        Just(Strike::All),
        prop::collection::btree_set(name, 0..4).prop_map(Strike::Without),
        prop::collection::vec(site, 0..4).prop_map(Strike::Only),
    ]
}

fn state() -> impl Strategy<Value = StateFate> {
    prop_oneof![Just(StateFate::Kept), Just(StateFate::Lost), (0..9_usize).prop_map(StateFate::Cut)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_scenario_is_read_as_it_was_written(
        generation in 0..3_u64, low in 0..1_000_000_u64, strike in strike(),
        crash_at in any::<Option<u64>>(), crash_state in state(), story in "\\PC{0,30}",
    ) {
        let seed = generation * 1_000_000 + low;
        let plan = Plan { strike, crash_at, crash_state, ..Plan::of_seed(seed) };
        let scenario = Scenario { story, violates: Some("x".into()), ..Scenario::new(seed, plan) };
        let text = scenario.write();
        prop_assert_eq!(Scenario::read(&text).unwrap(), scenario);
        prop_assert_eq!(Scenario::read(&text).unwrap().write(), text);
    }

    #[test]
    fn a_time_is_read_as_it_was_written(ns in any::<u64>()) {
        let duration = Duration::from_nanos(ns);
        prop_assert_eq!(time::parse(&time::text(duration)), Some(duration));
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in "\\PC{0,200}") {
        prop_assert!(Scenario::read(&text).is_err());
    }
}

#[test]
fn times_are_written_for_people() {
    for (text, ns) in [("0s", 0), ("90s", 90_000_000_000), ("1500us", 1_500_000), ("7ns", 7)] {
        assert_eq!(time::text(Duration::from_nanos(ns)), text);
    }
    assert_eq!(time::parse("2min"), Some(Duration::from_secs(120)));
    for text in ["", "5", "5h", "-1s", "1.5s", "s", "99999999999999999999s"] {
        assert_eq!(time::parse(text), None, "{text:?}");
    }
}

/// A scenario as a person would write it: what is left out is as in a run without faults.
const BY_HAND: &str = r#"{
  "scenario": 1,
  "seed": 29,
  "plan": {
    "config": {"sync_interval": "50ms"},
    "script": [["0s", {"open": {"page_bytes": 512}}], ["30ms", {"checkpoint": "FULL"}], ["1s", "close"]],
    "blows": [["20ms", {"kill": {"state": "lost", "down": "1s"}}]]
  }
}"#;

#[test]
fn a_scenario_by_hand_says_only_what_is_unusual() {
    let scenario = Scenario::read(BY_HAND).unwrap();
    let calm = Plan::calm(scenario.plan.script.clone());
    assert_eq!(scenario.plan.script.len(), 3);
    assert_eq!(scenario.plan.store, calm.store);
    assert_eq!(scenario.plan.config.sync_interval, Duration::from_millis(50));
    assert_eq!(scenario.plan.config.quiet_after, calm.config.quiet_after);
}

#[test]
fn an_operation_has_a_line() {
    let text = Scenario::read(BY_HAND).unwrap().write();
    assert!(text.contains("\n      [\"0s\", {\"open\": {\"page_bytes\": 512}}],\n"), "{text}");
    assert!(text.contains("\n      [\"1s\", \"close\"]\n    ],\n"), "{text}");
}

#[test]
fn bad_scenarios_are_refused_each_with_its_reason() {
    let refused = |from: &str, to: &str, says: &str| {
        assert!(BY_HAND.contains(from), "{from} is there to be replaced");
        let error = Scenario::read(&BY_HAND.replacen(from, to, 1)).unwrap_err();
        assert!(error.text.contains(says), "{error:?} does not say {says:?}");
        assert!(!error.hint.is_empty());
    };
    refused("\"scenario\": 1", "\"scenario\": 7", "version 7");
    refused("\"scenario\": 1,", "", "missing field `scenario`");
    refused("\"seed\": 29", "\"seed\": \"x\"", "line 3");
    refused("30ms", "30 parsecs", "\"30 parsecs\" is no time");
    refused("FULL", "HALF", "\"HALF\" is no mode of a checkpoint");
    refused("\"close\"", "\"clothe\"", "unknown variant `clothe`");
    refused("\"blows\"", "\"blowz\"", "unknown field `blowz`");
    refused("sync_interval", "sink_interval", "unknown field `sink_interval`");
    refused("{\n  \"scenario\"", "{\n  ]\"scenario\"", "not a scenario");
}
