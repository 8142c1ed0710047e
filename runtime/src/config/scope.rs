//! The keys of one mapping, all of them known, and their values as what they should be.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::keys::{Form, Key, Use};
use super::replica::options::{self, truth};
use super::yaml::{Entry, LineError, Node, Value};
use super::{absolute, duration};
use crate::cli::suggest::nearest;

pub(super) type Result<T> = std::result::Result<T, LineError>;

/// The keys of one mapping.
pub(super) struct Scope<'a> {
    entries: &'a [Entry],
}

impl<'a> Scope<'a> {
    /// Checks the keys of `node`, and tells of those without effect. With `options`, those of
    /// replicas are known as well.
    pub fn new(
        node: &'a Node,
        what: &str,
        known: &[&[Key]],
        options: bool,
        warnings: &mut Vec<String>,
    ) -> Result<Scope<'a>> {
        let entries: &[Entry] = match &node.value {
            Value::Map(entries) => entries,
            Value::Null => &[],
            _ => return Err(LineError::new(node.line, format!("{what} takes keys with values"))),
        };
        for entry in entries {
            let known = || known.iter().copied().flatten();
            let (key, line) = (&entry.key, entry.line);
            match known().find(|known| known.name == key).map(|known| known.used) {
                Some(Use::Used) => {}
                Some(Use::Idle(form, instead)) => {
                    check_form(form, entry)?;
                    if !is_off(&entry.value) && !instead.is_empty() {
                        warnings.push(format!("line {line}: {key} has no effect: {instead}"));
                    }
                }
                Some(Use::Refused(_)) if is_off(&entry.value) => {}
                Some(Use::Refused(hint)) => {
                    return Err(LineError::new(line, format!("{key} is not in this release")).hint(hint));
                }
                None if options && options::find(key).is_some() => {}
                None => {
                    let error = LineError::new(line, format!("{what} has no key {key:?}"));
                    let more = options::NAMES.iter().filter(|_| options).map(|name| name.name);
                    return Err(match nearest(key, known().map(|known| known.name).chain(more)) {
                        Some(near) => error.hint(format!("did you mean {near:?}?")),
                        None => error,
                    });
                }
            }
        }
        Ok(Scope { entries })
    }

    /// The entries that are options of replicas and not null.
    pub fn options(&self) -> impl Iterator<Item = &'a Entry> {
        let is_option =
            |entry: &&Entry| options::find(&entry.key).is_some() && entry.value.value != Value::Null;
        self.entries.iter().filter(is_option)
    }

    /// An entry that is there and not null.
    pub fn entry(&self, name: &str) -> Option<&'a Entry> {
        self.entries.iter().find(|entry| entry.key == name && entry.value.value != Value::Null)
    }

    pub fn text(&self, name: &str) -> Result<Option<&'a str>> {
        self.entry(name).map(|entry| text(&entry.value, name)).transpose()
    }

    /// Text that says something: empty text is as good as none.
    pub fn filled(&self, name: &str) -> Result<Option<&'a str>> {
        Ok(self.text(name)?.filter(|text| !text.is_empty()))
    }

    pub fn path(&self, name: &str) -> Result<Option<PathBuf>> {
        let Some(entry) = self.entry(name) else { return Ok(None) };
        let path = text(&entry.value, name)?;
        if path.is_empty() {
            return Err(LineError::new(entry.line, format!("{name} is empty")));
        }
        let unknown = |error| LineError::new(entry.line, format!("cannot tell where {path} is: {error}"));
        absolute(Path::new(path)).map(Some).map_err(unknown)
    }

    pub fn duration(&self, name: &str) -> Result<Option<Duration>> {
        self.entry(name).map(duration_of).transpose()
    }

    /// A duration that is at least `least`.
    pub fn duration_from(&self, name: &str, least: Duration) -> Result<Option<Duration>> {
        match self.duration(name)? {
            Some(duration) if duration < least => {
                let line = self.entry(name).map_or(0, |entry| entry.line);
                Err(LineError::new(line, format!("{name} is at least {}", duration::show(least))))
            }
            duration => Ok(duration),
        }
    }

    pub fn boolean(&self, name: &str) -> Result<Option<bool>> {
        self.entry(name).map(truth_of).transpose()
    }
}

pub(super) fn text<'a>(node: &'a Node, name: &str) -> Result<&'a str> {
    match &node.value {
        Value::Text(text) => Ok(text),
        _ => Err(LineError::new(node.line, format!("{name} takes text"))),
    }
}

pub(super) fn list<'a>(node: &'a Node, name: &str) -> Result<&'a [Node]> {
    match &node.value {
        Value::List(items) => Ok(items),
        Value::Null => Ok(&[]),
        _ => {
            Err(LineError::new(node.line, format!("{name} takes a list")).hint("begin each item with a dash"))
        }
    }
}

fn duration_of(entry: &Entry) -> Result<Duration> {
    let wrong = |error| LineError::new(entry.line, format!("{}: {error}", entry.key));
    duration::parse(text(&entry.value, &entry.key)?).map_err(wrong)
}

fn truth_of(entry: &Entry) -> Result<bool> {
    let wrong = || LineError::new(entry.line, format!("{} takes true or false", entry.key));
    truth(text(&entry.value, &entry.key)?).ok_or_else(wrong)
}

/// A key without effect may still be mistyped, and will have an effect one day.
fn check_form(form: Form, entry: &Entry) -> Result<()> {
    if entry.value.value == Value::Null {
        return Ok(());
    }
    let inner =
        |node: &Node, known: &[Key]| Scope::new(node, &entry.key, &[known], false, &mut Vec::new()).map(drop);
    match form {
        Form::Text => text(&entry.value, &entry.key).map(drop),
        Form::Duration => duration_of(entry).map(drop),
        Form::Truth => truth_of(entry).map(drop),
        Form::Number => {
            let number = text(&entry.value, &entry.key)?.parse::<i64>();
            number.map(drop).map_err(|_| LineError::new(entry.line, format!("{} takes a number", entry.key)))
        }
        Form::Map(known) => inner(&entry.value, known),
    }
}

/// Whether a value asks for nothing.
fn is_off(node: &Node) -> bool {
    match &node.value {
        Value::Null => true,
        Value::Text(text) => matches!(text.as_str(), "" | "false" | "no" | "off" | "0" | "0s"),
        Value::List(items) => items.is_empty(),
        Value::Map(entries) => entries.iter().all(|entry| is_off(&entry.value)),
    }
}
