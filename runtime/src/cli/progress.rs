//! Progress of long work: a bar where a person watches, a log line now and then elsewhere.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use driftless_core::machine::{Fact, Notice, Severity};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::output::human_count;
use crate::log;

/// The shortest time between two log lines about progress.
const LOG_EVERY: Duration = Duration::from_secs(5);

/// Shows the notices of a machine.
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
    subject: String,
    started: Instant,
    logged: Instant,
}

impl Progress {
    /// Progress of `subject`; quiet where `quiet`, except for warnings.
    pub fn new(subject: String) -> Progress {
        let bar = io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr_with_hz(10));
            let form = "{msg:10} {bar:30} {percent:>3}%  {human_pos} of {human_len}  {per_sec}  {eta} left";
            bar.with_style(ProgressStyle::with_template(form).expect("the template is well formed"))
        });
        let now = Instant::now();
        Progress { bar, subject, started: now, logged: now }
    }

    /// Takes one notice.
    pub fn notice(&mut self, notice: &Notice) {
        match (&notice.fact, &self.bar) {
            (Fact::Progress { what, done, total }, Some(bar)) => {
                bar.set_length(*total);
                bar.set_position(*done);
                bar.set_message(*what);
            }
            (Fact::Progress { what, done, total }, None) => {
                if self.logged.elapsed() >= LOG_EVERY {
                    self.logged = Instant::now();
                    let seconds = self.started.elapsed().as_secs_f64();
                    tracing::info!(subject = self.subject, "{}", line(what, *done, *total, seconds));
                }
            }
            (_, Some(bar)) if notice.severity > Severity::Debug => {
                bar.suspend(|| log::notice(&self.subject, notice));
            }
            _ => log::notice(&self.subject, notice),
        }
    }

    /// Takes the bar away.
    pub fn finish(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}

fn line(what: &str, done: u64, total: u64, seconds: f64) -> String {
    let rate = if seconds > 0.0 { done as f64 / seconds } else { 0.0 };
    let percent = (done * 100).checked_div(total).unwrap_or(100);
    let mut text = format!("{what}: {} of {} ({percent} %)", human_count(done), human_count(total));
    if rate >= 1.0 {
        let left = total.saturating_sub(done) as f64 / rate;
        text.push_str(&format!(", {} a second, {left:.0} s left", human_count(rate as u64)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_tell_rate_and_rest() {
        assert_eq!(line("pages", 500, 2000, 5.0), "pages: 500 of 2,000 (25 %), 100 a second, 15 s left");
        assert_eq!(line("pages", 0, 0, 0.0), "pages: 0 of 0 (100 %)");
    }
}
