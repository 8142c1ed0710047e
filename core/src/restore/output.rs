//! How a restore ends when its output fails.

use alloc::format;

use crate::machine::{Exit, OutputError};

/// What was asked of the output.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum OutputStep {
    /// To create the file.
    Create,
    /// To write it, or to set its length.
    Write,
    /// To make it durable.
    Sync,
    /// To put it in place.
    Publish,
}

/// The end that a failed output request brings.
pub(crate) fn output_exit(step: OutputStep, error: &OutputError) -> Exit {
    let text = error.text.clone();
    if error.exists {
        return Exit::Failed {
            error: text,
            hint: "the file exists and stays as it is; -force replaces it".into(),
        };
    }
    let what = match step {
        OutputStep::Create => "create the file beside the target",
        OutputStep::Publish => "put the file in the target's place",
        OutputStep::Sync => "make the file durable",
        OutputStep::Write => "write the file beside the target",
    };
    Exit::Failed {
        error: format!("{what}: {text}"),
        hint: "the target is as it was; check space and permissions".into(),
    }
}
