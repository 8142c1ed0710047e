//! The simulator's commands: what they tell, and what they end with.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use driftless_sim::ring0::planted::Planted;
use driftless_sim::ring0::{Plan, report};
use driftless_sim::scenario::Scenario;
use driftless_sim::trace::{Keep, TRACE_VERSION, TraceFile, diverge};

/// Exit code, output, errors.
fn sim(arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_sim")).args(arguments).output().expect("it runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().expect("it ends by itself"), text(&output.stdout), text(&output.stderr))
}

fn folder(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("commands").join(name);
    fs::create_dir_all(&folder).expect("a folder can be made");
    folder
}

/// A seed whose run meets what the planted defect waits for, as a scenario in a file.
fn planted(name: &str, defect: Planted, differs: impl Fn(u64, &Plan) -> bool) -> String {
    let plan = |seed| Plan { planted: Some(defect), ..Plan::of_seed(seed) };
    let seed = (100_000..100_200).find(|seed| differs(*seed, &plan(*seed))).expect("a seed meets it");
    let path = folder(name).join("planted.json");
    fs::write(&path, Scenario::new(seed, plan(seed)).write()).expect("it can be written");
    path.to_str().expect("a plain path").to_owned()
}

/// The hash of two processes is one, although other threads work in the second.
#[test]
fn a_seed_is_the_same_in_two_processes() {
    let out = folder("twice");
    for seed in ["17", "1000682", "2000017", "10000017"] {
        let (code, told, errors) = sim(&["replay", seed, "--twice", "--out", out.to_str().unwrap()]);
        assert_eq!(code, 0, "{told}{errors}");
        assert!(told.contains("trace hash"), "{told}");
    }
}

/// The order of a hash table with a random state gets into a run: the first record that differs is
/// told.
#[test]
fn a_planted_random_state_is_found() {
    let parts = |seed, plan: &Plan| {
        let records = || report(seed, plan.clone(), Keep::Records, None).records;
        diverge(&records(), &records()).is_some()
    };
    let path = planted("random_state", Planted::RandomState, parts);
    let out = folder("random_state");
    let (code, told, errors) = sim(&["replay", &path, "--twice", "--out", out.to_str().unwrap()]);
    assert_eq!(code, 3, "{told}{errors}");
    assert!(told.contains("the two runs part at record"), "{told}");
    assert!(told.contains("one ") && told.contains("in the order of a hash table"), "{told}");
}

/// A failure names its oracle, its commit and how to repeat it; what is written of it is small, and
/// fails in the same way.
#[test]
fn a_failure_is_told_made_small_and_drawn() {
    let fails = |seed, plan: &Plan| report(seed, plan.clone(), Keep::Nothing, None).result.is_err();
    let path = planted("lost_answer", Planted::LostAnswer, fails);
    let (code, told, _) = sim(&["replay", &path]);
    assert_eq!(code, 1, "{told}");
    for part in ["FAILED planted: ", "replay    cargo sim replay ", "timeline  "] {
        assert!(told.contains(part), "{part:?} is not in {told}");
    }
    let out = folder("lost_answer");
    let (code, told, errors) = sim(&["shrink", &path, "--seconds", "20", "--out", out.to_str().unwrap()]);
    assert_eq!(code, 0, "{told}{errors}");
    let named = |what: &str| {
        let line = told.lines().find(|line| line.trim_start().starts_with(what)).expect("it is named");
        line.split_whitespace().nth(1).expect("a path").to_owned()
    };
    let page = fs::read_to_string(named("timeline")).expect("it is there");
    assert!(page.contains("an answer was lost after a VACUUM and a death"));
    assert_eq!(sim(&["replay", &named("scenario")]).0, 1, "the small one fails as well");
}

#[test]
fn a_trace_is_written_read_and_drawn() {
    let path = folder("trace").join("17.json");
    let path = path.to_str().unwrap();
    assert_eq!(sim(&["trace", "17", "--json", "-o", path]).0, 0);
    let trace = TraceFile::read(fs::read(path).unwrap().as_slice()).expect("it is one");
    assert_eq!(trace.header.seed, 17);
    let (code, page, _) = sim(&["trace", path, "--html"]);
    assert!(code == 0 && page.starts_with("<!DOCTYPE html>") && page.contains("\"name\":\"seed 17\""));
    let version = |number: u64| format!("\"driftless_trace\":{number}");
    let text = fs::read_to_string(path).unwrap();
    let other = text.replacen(&version(TRACE_VERSION), &version(9), 1);
    assert_ne!(other, text);
    fs::write(path, other).unwrap();
    let (code, _, errors) = sim(&["trace", path, "--html"]);
    assert!(code == 64 && errors.contains("a trace of version 9"), "{errors}");
}

#[test]
fn what_cannot_be_used_is_refused_with_a_hint() {
    let broken = folder("broken").join("broken.json");
    fs::write(&broken, "{\"scenario\": 1, \"seed\": 1, \"plan\": {\"blowz\": []}}").unwrap();
    let broken = broken.to_str().unwrap();
    for (line, says) in [
        (&[][..], "no command was given"),
        (&["rnu"], "did you mean cargo sim run?"),
        (&["run"], "no seeds were given"),
        (&["run", "--seeds", "9..3"], "no seed is in 9..3"),
        (&["run", "--seeds", "1..2", "--jobs", "0"], "--jobs 0"),
        (&["run", "--seeds", "1..2", "--profile", "fast"], "unknown profile: fast"),
        (&["replay", "twentynine"], "\"twentynine\" is no seed"),
        (&["replay", "no/such.json"], "there is no file no/such.json"),
        (&["replay", broken], "unknown field `blowz`"),
        (&["replay", "17", "--until", "soon"], "not a number of seconds"),
        (&["shrink", "17"], "17 does not fail"),
        (&["explore", "--script", "epic"], "unknown script: epic"),
        (&["explore", "--part", "5/4"], "is no part"),
    ] {
        let (code, told, errors) = sim(line);
        assert_eq!(code, 64, "{line:?}: {told}{errors}");
        assert!(errors.starts_with("error: ") && errors.contains(says), "{line:?}: {errors}");
        assert!(errors.contains("\n\nhint: "), "{line:?} has no hint: {errors}");
    }
}

#[test]
fn help_names_each_command() {
    let (code, told, _) = sim(&["help"]);
    assert_eq!(code, 0);
    for command in ["run", "replay", "shrink", "explore", "trace", "scenario"] {
        assert!(told.contains(&format!("\ncargo sim {command} ")), "{command} is not in\n{told}");
    }
}
