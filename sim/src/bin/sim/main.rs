//! `cargo sim`: runs seeds, repeats one, makes it small, shows it. `cargo sim help` tells how.

#![expect(clippy::print_stdout, reason = "it is a command")]

mod args;
mod explore;
mod failover;
mod failure;
mod mutants;
mod replay;
mod run;
mod scenario;
mod shrink;
mod table;
mod trace;
mod worker;

use std::process::ExitCode;

use args::{Args, Flag, switch, value};
use driftless::cli::suggest::nearest;
use driftless_sim::bad_input::BadInput;

/// The command line, or what it names, cannot be used. Codes 1 to 4 tell what an oracle said.
const USAGE: u8 = 64;

/// How a command ends that found something to tell by its exit code.
type Ended = Result<ExitCode, BadInput>;

/// A command.
struct Command {
    name: &'static str,
    usage: &'static str,
    about: &'static str,
    flags: &'static [Flag],
    positionals_max: usize,
    run: fn(&Args) -> Ended,
    /// Whether it is for people.
    shown: bool,
}

const PROFILE: Flag = value(
    "profile",
    "P",
    "seed (default), calm (the same without faults), standard (10 minutes), small (a dozen operations)",
);
const OUT: Flag = value("out", "DIR", "where failures are written (default target/sim)");

const COMMANDS: &[Command] = &[
    Command {
        name: "run",
        usage: "run --seeds A..B [--only] [--jobs N] [--profile P] [--out DIR]",
        about: "Runs seeds, tells the failures, and sums up. A..B has A and not B; A+N is N of them;\n\
                A may be a commit.",
        flags: &[
            value("seeds", "A..B", "which seeds"),
            switch("only", "without the seeds of sim/seeds.txt, which otherwise run first"),
            value("jobs", "N", "how many processes (default: one for each processor)"),
            PROFILE,
            OUT,
        ],
        positionals_max: 0,
        run: run::run,
        shown: true,
    },
    Command {
        name: "replay",
        usage: "replay SEED|FILE [--until S] [-v] [--twice] [--against PROGRAM] [--profile P]",
        about: "Runs one seed or one scenario. With --twice it runs in two more processes, and the first\n\
                record that differs is told; --against does that with another build of this program.",
        flags: &[
            value("until", "S", "stop after so many simulated seconds"),
            switch("v", "tell what happens"),
            switch("twice", "compare the traces of two processes"),
            value("against", "PROGRAM", "compare with the trace that another build writes"),
            PROFILE,
            OUT,
        ],
        positionals_max: 1,
        run: replay::run,
        shown: true,
    },
    Command {
        name: "shrink",
        usage: "shrink SEED|FILE [--seconds S] [--profile P] [--out DIR]",
        about: "Makes a failing run small, and writes it as a scenario and a timeline.",
        flags: &[value("seconds", "S", "how long to try (default 60)"), PROFILE, OUT],
        positionals_max: 1,
        run: shrink::run,
        shown: true,
    },
    Command {
        name: "explore",
        usage: "explore [--script NAME] [--seed N] [--pairs] [--part K/N]",
        about: "Runs a short script with each single fault, with a crash after each action, and with\n\
                --pairs with both. Without --script: all scripts one by one, and the shortest in pairs.",
        flags: &[
            value("script", "NAME", "tiny, daily, rough or crowded"),
            value("seed", "N", "the dice (default 1)"),
            switch("pairs", "each fault with each crash"),
            value("part", "K/N", "only every N-th run, from the K-th on (1 to N)"),
            OUT,
        ],
        positionals_max: 0,
        run: explore::run,
        shown: true,
    },
    Command {
        name: "failover",
        usage: "failover --seeds A..B [--whole [-v]] [--jobs N] | failover --explore [--part K/N] [--jobs N]",
        about: "Runs seeds of hosts that contend for one lease, or a takeover between two with each single fault.",
        flags: &[
            value("seeds", "A..B", "which seeds"),
            switch("whole", "with follower, replicator and database on each host"),
            switch(
                "explore",
                "every death, pause and fate of a request, one at a time, in each way to lose the writer",
            ),
            value("part", "K/N", "only every N-th run, from the K-th on (1 to N)"),
            switch("v", "tell what happens"),
            value("jobs", "N", "how many threads (default: one for each processor)"),
        ],
        positionals_max: 0,
        run: failover::command,
        shown: true,
    },
    Command {
        name: "trace",
        usage: "trace SEED|FILE [--json|--html] [-o PATH] [--profile P]",
        about: "Writes what happens in a run, as lines of JSON or as a page with a timeline. FILE is a\n\
                scenario, or a trace that was written before.",
        flags: &[
            switch("json", "lines of JSON (default)"),
            switch("html", "a page that stands for itself"),
            value("o", "PATH", "where to (default: standard output)"),
            switch("noise", "let other threads work meanwhile"),
            PROFILE,
        ],
        positionals_max: 1,
        run: trace::run,
        shown: true,
    },
    Command {
        name: "mutants",
        usage: "mutants [--only NAME] [--seeds N] [--jobs N] [--profile P] [--shrink] | --scenarios | --list",
        about: "Builds the simulator with planted bugs, in target/mutants, and runs seeds until each is found.\n\
                With --scenarios it runs the small scenarios that are kept. Ends with 1 if a bug survives.",
        flags: &[
            value("only", "NAME", "this bug alone"),
            value("seeds", "N", "give one up after so many seeds (default 5,000)"),
            value("jobs", "N", "how many at a time (default 1)"),
            switch("shrink", "make each run that finds one small, and keep it in sim/scenarios/mutants"),
            switch("scenarios", "run what is kept there"),
            switch("list", "tell which there are"),
            PROFILE,
        ],
        positionals_max: 0,
        run: mutants::run,
        shown: true,
    },
    Command {
        name: "hunt",
        usage: "hunt NAME SEEDS PROFILE [--write FILE] | hunt NAME --scenario FILE",
        about: "A process of `mutants`, which holds the bugs.",
        flags: &[value("write", "FILE", "a small run"), value("scenario", "FILE", "run this")],
        positionals_max: 3,
        run: mutants::hunt,
        shown: false,
    },
    Command {
        name: "scenario",
        usage: "scenario SEED [-o PATH] [--profile P]",
        about: "Writes the plan of a seed as a scenario, which can be changed by hand and replayed.",
        flags: &[value("o", "PATH", "where to (default: standard output)"), PROFILE],
        positionals_max: 1,
        run: scenario::run,
        shown: true,
    },
    Command {
        name: "worker",
        usage: "worker FROM TO STEP PROFILE",
        about: "A process of `run`.",
        flags: &[],
        positionals_max: 4,
        run: worker::run,
        shown: false,
    },
];

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match dispatch(&words) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(USAGE)
        }
    }
}

fn dispatch(words: &[String]) -> Ended {
    let Some((name, rest)) = words.split_first() else {
        return Err(BadInput::new("no command was given").hint("cargo sim help lists the commands"));
    };
    if ["help", "--help", "-h"].contains(&name.as_str()) {
        help();
        return Ok(ExitCode::SUCCESS);
    }
    let Some(command) = COMMANDS.iter().find(|command| command.name == name) else {
        let hint = match nearest(name, COMMANDS.iter().filter(|c| c.shown).map(|command| command.name)) {
            Some(near) => format!("did you mean cargo sim {near}?"),
            None => "cargo sim help lists the commands".to_owned(),
        };
        return Err(BadInput::new(format!("unknown command: {name}")).hint(hint));
    };
    let with_usage = |error: BadInput| match error.hint.is_empty() {
        true => error.hint(format!("usage: cargo sim {}", command.usage)),
        false => error,
    };
    let args = Args::parse(rest, command.flags, command.positionals_max).map_err(with_usage)?;
    if args.is_on("help") {
        print!("{}", describe(command));
        return Ok(ExitCode::SUCCESS);
    }
    (command.run)(&args).map_err(with_usage)
}

fn help() {
    println!(
        "cargo sim runs the replicator in a simulated world, where every decision follows from a seed.\n"
    );
    for command in COMMANDS.iter().filter(|command| command.shown) {
        println!("{}", describe(command));
    }
    println!(
        "exit codes: 0 all promises kept; 1 safety, 2 liveness, 3 non-determinism, 4 panic; {USAGE} usage"
    );
    println!("docs/SIMULATION.md tells more.");
}

fn describe(command: &Command) -> String {
    let mut text = format!("cargo sim {}\n", command.usage);
    command.about.lines().for_each(|line| text += &format!("    {line}\n"));
    for flag in command.flags {
        let dashes = if flag.name.len() == 1 { "-" } else { "--" };
        let shape = format!("{dashes}{} {}", flag.name, flag.value.unwrap_or(""));
        text += &format!("      {shape:<20} {}\n", flag.help);
    }
    text
}
