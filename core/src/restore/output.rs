//! The file that is built: from creating it to putting it in place, and how a restore ends when that
//! fails.

use alloc::format;

use super::machine::{Phase, Restorer, Then, Work};
use super::overlap::Early;
use crate::ids::Now;
use crate::machine::{Actions, Chunk, Exit, Fact, OutputError, OutputRequest, Request, Severity};

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

impl Restorer {
    pub(super) fn output(&mut self, request: OutputRequest, out: &mut Actions) {
        self.submit(Work::Output, Request::Output(request), out);
    }

    /// Creates the output, unless that was done while the survey went on, and fetches into it.
    pub(super) fn create(&mut self, now: Now, out: &mut Actions) {
        self.phase = Phase::Create;
        match self.early {
            Early::Unasked => self.ask_create(out),
            Early::Creating | Early::Looking => {}
            Early::Open => self.begin_fetch(now, out),
            Early::Left => self.begin_recall(now, out),
        }
    }

    pub(super) fn ask_create(&mut self, out: &mut Actions) {
        self.creating = true;
        let keep = self.resumes();
        self.output(OutputRequest::Create { keep }, out);
    }

    pub(super) fn output_done(
        &mut self,
        now: Now,
        work: Work,
        result: Result<Chunk, OutputError>,
        out: &mut Actions,
    ) {
        match work {
            Work::Look => return self.looked(now, result, out),
            Work::Recall => return self.recalled(now, result, out),
            Work::Keep(first) => return self.keep_read(first, result, out),
            _ => {}
        }
        let creating = work == Work::Output && core::mem::take(&mut self.creating);
        if creating {
            self.created = result.is_ok();
        }
        if let Phase::Discard(then) = &self.phase {
            let then = then.clone();
            self.created = false;
            if let Err(error) = result {
                let text = format!("the unfinished file could not be removed: {}", error.text);
                out.notify(Severity::Warn, Fact::Remark { text });
            }
            return self.go(now, then, out);
        }
        if let Err(error) = result {
            if matches!(self.phase, Phase::Settle(_)) {
                return;
            }
            let step = match self.phase {
                _ if creating => OutputStep::Create,
                Phase::Publish => OutputStep::Publish,
                Phase::Sync => OutputStep::Sync,
                _ => OutputStep::Write,
            };
            return self.settle(Then::Exit(output_exit(step, &error)), out);
        }
        match (&self.phase, work) {
            (_, Work::Write(lane)) => self.written(now, lane, out),
            (_, Work::KeepWrite(first)) => self.kept(first, out),
            (Phase::Settle(_), _) => {}
            _ if creating => self.output_created(now, out),
            (Phase::SetLen, _) => {
                self.phase = Phase::Sync;
                self.output(OutputRequest::Sync, out);
            }
            (Phase::Sync, _) => {
                self.phase = Phase::Publish;
                self.output(OutputRequest::Publish { replace: self.config.replace }, out);
            }
            (Phase::Publish, _) => self.stop(Exit::Done, out),
            _ => {}
        }
    }

    /// All pages are written and right.
    pub(super) fn finish(&mut self, out: &mut Actions) {
        let header = self.target_header().expect("the target's header was read before its pages");
        let len = u64::from(header.commit) * u64::from(header.page_size.get());
        self.phase = Phase::SetLen;
        self.output(OutputRequest::SetLen(len), out);
    }
}
