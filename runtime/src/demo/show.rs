//! How the demo tells its story: lines with the time at which things happened, and on a terminal
//! one line below them that moves.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::processes::Look;
use crate::cli::output::{Out, human_count};

/// The time between two lines of figures where no person watches.
const LINE_EVERY: Duration = Duration::from_secs(2);

/// The stage's voice.
pub(super) struct Show<'a> {
    out: &'a mut Out,
    bar: Option<ProgressBar>,
    begun: Instant,
    told: Instant,
    colour: bool,
}

impl<'a> Show<'a> {
    pub(super) fn new(out: &'a mut Out) -> Show<'a> {
        let terminal = out.is_terminal();
        let bar = terminal.then(|| {
            let form =
                ProgressStyle::with_template("{spinner:.cyan} {msg}").expect("the template is well formed");
            let target = ProgressDrawTarget::stdout_with_hz(10);
            ProgressBar::with_draw_target(None, target).with_style(form)
        });
        let colour = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let now = Instant::now();
        Show { out, bar, begun: now, told: now, colour }
    }

    /// The first line.
    pub(super) fn title(&mut self, text: &str) {
        let text = self.paint("1", text);
        self.line(&format!("{text}\n"));
    }

    /// Something has happened.
    pub(super) fn say(&mut self, text: &str) {
        let time = format!("{:5.1} s", self.begun.elapsed().as_secs_f64());
        let time = self.paint("36", &time);
        self.line(&format!("{time}  {text}"));
    }

    /// The figures of this moment.
    pub(super) fn live(&mut self, transactions: u64, look: Option<&Look>) {
        let replica = match look {
            None => "nobody replicates".to_owned(),
            Some(Look { replicated: None, .. }) => "nothing replicated yet".to_owned(),
            Some(Look { replicated: Some(txid), frames_behind }) => {
                let lag = match frames_behind {
                    0 => "up to date".to_owned(),
                    frames => format!("{} frames to go", human_count(*frames)),
                };
                format!("txid {}, {lag}", super::short(*txid))
            }
        };
        let text = format!("{:>7} transactions, {replica}", human_count(transactions));
        match &self.bar {
            Some(bar) => {
                bar.set_message(text);
                bar.tick();
            }
            None if self.told.elapsed() >= LINE_EVERY => {
                self.told = Instant::now();
                self.say(&format!("  {}", text.trim_start()));
            }
            None => {}
        }
    }

    /// The figures of the whole.
    pub(super) fn table(&mut self, rows: &[(&str, String)]) {
        self.finish();
        let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        self.out.line("");
        for (name, value) in rows {
            self.out.line(format_args!("  {name:<width$}   {value}"));
        }
    }

    /// The last line.
    pub(super) fn verdict(&mut self, text: &str) {
        let equal = self.paint("1;32", "equal:");
        self.out.line(format_args!("\n{equal} {text}"));
    }

    /// Takes the moving line away.
    pub(super) fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    fn line(&mut self, text: &str) {
        match self.bar.clone() {
            Some(bar) => bar.suspend(|| self.out.line(text)),
            None => self.out.line(text),
        }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        match self.colour {
            true => format!("\x1b[{code}m{text}\x1b[0m"),
            false => text.to_owned(),
        }
    }
}
