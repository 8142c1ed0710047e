//! The command line.
//!
//! [`commands`] is the table of commands, flags and help; [`args`] reads a line by it; one module
//! a command does the work and says what came of it. Whatever goes wrong is one
//! [`CliError`]: an error, its causes, a hint, an exit code. Results go to
//! standard output ([`output`]), logs, progress and errors to standard error, so that output can
//! be piped.

pub mod args;
mod check;
pub mod commands;
mod databases;
pub mod error;
pub mod integrity;
mod lag;
mod lease;
mod list;
mod logging;
mod ltx;
pub mod output;
mod progress;
mod register;
mod remote;
mod replicate;
mod reset;
pub mod restore;
mod retain;
mod segments;
mod start;
mod status;
pub mod suggest;
mod sync;
pub(crate) mod target;
mod verify;
mod version;
mod watch;

use std::ffi::OsString;
use std::process::ExitCode;

use args::Args;
use commands::COMMANDS;
use error::CliError;
use output::Out;

use crate::config::{Config, ConfigError, DEFAULT_PATHS};

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            logging::tell_end(&error);
            ExitCode::from(error.code)
        }
    }
}

fn run(args: &[OsString]) -> Result<(), CliError> {
    let mut out = Out::new();
    let (before, rest) = Args::parse_leading(args)?;
    let Some((name, rest)) = rest.split_first() else {
        if before.help {
            out.write(&commands::overview());
            return Ok(());
        }
        return Err(CliError::usage("no command was given").hint("driftless help lists the commands"));
    };
    let name = name.to_string_lossy();
    if name == crate::demo::WRITER_COMMAND {
        return crate::demo::write(rest);
    }
    let command = commands::find(&name).ok_or_else(|| unknown_command(&name))?;
    let args = Args::parse(command, rest, before)?;
    if args.help {
        out.write(&commands::help(command));
        return Ok(());
    }
    match command.name {
        "replicate" => replicate::run(&args, true),
        "standby" => replicate::run(&args, false),
        "handoff" => lease::handoff(&args, &mut out),
        "lease" => lease::show(&args, &mut out),
        "restore" => restore::run(&args, &mut out),
        "status" => status::run(&args, &mut out),
        "list" => list::list(&args, &mut out),
        "info" => list::info(&args, &mut out),
        "sync" => sync::run(&args, &mut out),
        "register" => register::register(&args, &mut out),
        "unregister" => register::unregister(&args, &mut out),
        "start" => start::start(&args, &mut out),
        "stop" => start::stop(&args, &mut out),
        "reset" => reset::run(&args, &mut out),
        "ltx" => ltx::run(&args, &mut out),
        "verify" => verify::run(&args, &mut out),
        "retain" => retain::run(&args, &mut out),
        "databases" => databases::run(&args, &mut out),
        "check" => check::run(&args, &mut out),
        "demo" => crate::demo::run(&args, &mut out),
        "version" => {
            version::run(&args, &mut out);
            Ok(())
        }
        "help" => help(&args, &mut out),
        other => unreachable!("{other} is in the table of commands and has no module"),
    }
}

fn help(args: &Args, out: &mut Out) -> Result<(), CliError> {
    match args.positionals.first() {
        None => out.write(&commands::overview()),
        Some(name) => {
            let name = name.to_string_lossy();
            let command = commands::find(&name).ok_or_else(|| unknown_command(&name))?;
            out.write(&commands::help(command));
        }
    }
    Ok(())
}

/// Litestream's other commands are known by name.
fn unknown_command(name: &str) -> CliError {
    if name == "mcp" {
        return CliError::usage(format!("{name} is not in this release"))
            .hint("driftless help lists what is");
    }
    if name == "wal" {
        return CliError::usage("wal is not in this release")
            .hint("its name is driftless ltx since litestream 0.5");
    }
    let hint = match suggest::nearest(name, COMMANDS.iter().map(|command| command.name)) {
        Some(near) => format!("did you mean driftless {near}?"),
        None => "driftless help lists the commands".to_owned(),
    };
    CliError::usage(format!("unknown command: {name}")).hint(hint)
}

/// The configuration that the flags name, or that is at a usual place; `None` if nobody named one
/// and there is none.
fn load_config(args: &Args) -> Result<Option<Config>, CliError> {
    let path = args.path("config");
    match Config::load(path.as_deref(), !args.is_on("no-expand-env")) {
        Ok(config) => Ok(Some(config)),
        Err(ConfigError::NoneFound) => Ok(None),
        Err(ConfigError::Unreadable { path, error }) => {
            let hint = "name the file with -config, or give the database and its replica on the command line";
            let error = match error.kind() {
                std::io::ErrorKind::NotFound => "there is no such file".to_owned(),
                _ => error.to_string(),
            };
            let what = format!("cannot read the configuration {}", path.display());
            Err(CliError::usage(what).cause(error).hint(hint))
        }
        Err(ConfigError::Wrong { path, error }) => {
            let what = format!("the configuration {} is wrong", path.display());
            let what = CliError::usage(what).cause(format!("line {}: {}", error.line, error.error));
            Err(what.hint(error.hint.unwrap_or_default()))
        }
    }
}

/// As [`load_config`], for commands that need one.
fn need_config(args: &Args) -> Result<Config, CliError> {
    load_config(args)?.ok_or_else(|| {
        let [first, second] = DEFAULT_PATHS;
        CliError::usage("there is no configuration")
            .cause(format!("neither {first} nor {second} exists"))
            .hint("name the file with -config")
    })
}
