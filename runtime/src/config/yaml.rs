//! A YAML document as a tree in which every node knows its line.
//!
//! The configuration is read from this tree by hand rather than through serde, because half of
//! the work is in what serde leaves out: the line of a key that nobody knows, the guess at what
//! was meant, the key of Litestream's that must be refused and not ignored. Scalars stay text, so
//! that a password of digits keeps its zeros. Anchors, aliases and merge keys (`<<`) work.

use std::collections::BTreeMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

/// Levels of nesting that a configuration may have.
const DEPTH_MAX: usize = 32;
/// Nodes that a configuration may have, aliases counted as what they stand for.
const NODES_MAX: usize = 100_000;

/// A node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Node {
    /// Its line, from 1.
    pub line: usize,
    /// What it holds.
    pub value: Value,
}

/// What a node holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value {
    /// Nothing, `~` or `null`.
    Null,
    /// A scalar as it is written, quotes taken off.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// A mapping in the order of the document; keys occur once.
    Map(Vec<Entry>),
}

/// A key and its value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// The line of the key.
    pub line: usize,
    /// The value.
    pub value: Node,
}

/// Something wrong on a line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LineError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong.
    pub error: String,
    /// What to do.
    pub hint: Option<String>,
}

impl LineError {
    /// An error without a hint.
    pub fn new(line: usize, error: impl Into<String>) -> LineError {
        LineError { line, error: error.into(), hint: None }
    }

    /// Adds a hint.
    pub fn hint(mut self, hint: impl Into<String>) -> LineError {
        self.hint = Some(hint.into());
        self
    }
}

/// Reads one document; an empty text is `Null`.
pub fn parse(text: &str) -> Result<Node, LineError> {
    let mut builder = Builder { parser: Parser::new_from_str(text), anchors: BTreeMap::new(), nodes: 0 };
    let mut document: Option<Node> = None;
    loop {
        let (event, span) = builder.next()?;
        match event {
            Event::StreamEnd => return Ok(document.unwrap_or(Node { line: 1, value: Value::Null })),
            Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing => {}
            _ if document.is_some() => {
                return Err(LineError::new(span.start.line(), "a second document begins here"));
            }
            event => document = Some(builder.node(event, span, 0)?),
        }
    }
}

struct Builder<'input, T: saphyr_parser::Input> {
    parser: Parser<'input, T>,
    anchors: BTreeMap<usize, Node>,
    nodes: usize,
}

impl<'input, T: saphyr_parser::Input> Builder<'input, T> {
    fn next(&mut self) -> Result<(Event<'input>, Span), LineError> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => {
                Err(LineError::new(error.marker().line(), format!("not yaml: {}", error.info())))
            }
            None => Err(LineError::new(1, "not yaml: the text ends too early")),
        }
    }

    fn node(&mut self, event: Event<'input>, span: Span, depth: usize) -> Result<Node, LineError> {
        let line = span.start.line();
        if depth > DEPTH_MAX {
            return Err(LineError::new(line, "nested too deeply"));
        }
        self.count(line, 1)?;
        let (anchor, value) = match event {
            Event::Scalar(text, style, anchor, _tag) => {
                let null =
                    style == ScalarStyle::Plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
                (anchor, if null { Value::Null } else { Value::Text(text.into_owned()) })
            }
            Event::SequenceStart(anchor, _tag) => (anchor, Value::List(self.list(depth)?)),
            Event::MappingStart(anchor, _tag) => (anchor, Value::Map(self.map(depth)?)),
            Event::Alias(anchor) => {
                let node = self.anchors.get(&anchor).cloned();
                let node = node.ok_or_else(|| LineError::new(line, "an alias within its own anchor"))?;
                self.count(line, size(&node))?;
                return Ok(Node { line, value: node.value });
            }
            _ => return Err(LineError::new(line, "not yaml: a value is missing")),
        };
        let node = Node { line, value };
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn list(&mut self, depth: usize) -> Result<Vec<Node>, LineError> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(items),
                (event, span) => items.push(self.node(event, span, depth + 1)?),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Vec<Entry>, LineError> {
        let (mut entries, mut merged) = (Vec::<Entry>::new(), Vec::new());
        loop {
            let (event, span) = self.next()?;
            if event == Event::MappingEnd {
                break;
            }
            let Node { line, value: Value::Text(key) } = self.node(event, span, depth + 1)? else {
                return Err(LineError::new(span.start.line(), "a key must be text"));
            };
            let (event, span) = self.next()?;
            let value = self.node(event, span, depth + 1)?;
            if key == "<<" {
                merged.extend(merge_sources(value)?);
            } else if let Some(first) = entries.iter().find(|entry| entry.key == key) {
                return Err(LineError::new(line, format!("{key:?} stands on line {} already", first.line)));
            } else {
                entries.push(Entry { key, line, value });
            }
        }
        // Keys of the mapping itself win over merged ones, and earlier sources over later ones.
        for entry in merged {
            if entries.iter().all(|known| known.key != entry.key) {
                entries.push(entry);
            }
        }
        Ok(entries)
    }

    fn count(&mut self, line: usize, nodes: usize) -> Result<(), LineError> {
        self.nodes += nodes;
        if self.nodes > NODES_MAX {
            return Err(LineError::new(line, "the configuration is too large"));
        }
        Ok(())
    }
}

fn merge_sources(node: Node) -> Result<Vec<Entry>, LineError> {
    match node.value {
        Value::Map(entries) => Ok(entries),
        Value::List(items) => {
            items.into_iter().map(merge_sources).collect::<Result<Vec<_>, _>>().map(|lists| lists.concat())
        }
        _ => Err(LineError::new(node.line, "<< takes a mapping")),
    }
}

fn size(node: &Node) -> usize {
    1 + match &node.value {
        Value::Null | Value::Text(_) => 0,
        Value::List(items) => items.iter().map(size).sum(),
        Value::Map(entries) => entries.iter().map(|entry| 1 + size(&entry.value)).sum(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Prints a tree on one line, lines left out.
    fn show(node: &Node) -> String {
        match &node.value {
            Value::Null => "~".to_owned(),
            Value::Text(text) => format!("{text:?}"),
            Value::List(items) => format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(" ")),
            Value::Map(entries) => {
                let entries = entries.iter().map(|entry| format!("{}:{}", entry.key, show(&entry.value)));
                format!("{{{}}}", entries.collect::<Vec<_>>().join(" "))
            }
        }
    }

    fn check(text: &str, expected: &str) {
        assert_eq!(parse(text).map(|node| show(&node)), Ok(expected.to_owned()), "{text}");
    }

    fn check_error(text: &str, line: usize, part: &str) {
        let error = parse(text).unwrap_err();
        assert!(error.line == line && error.error.contains(part), "{text}: {error:?}");
    }

    #[test]
    fn scalars_stay_as_they_are_written() {
        check("", "~");
        check("# nothing\n", "~");
        check("a: 007\nb: 'yes'\nc:\nd: ~\ne: ''\nf: 1s", r#"{a:"007" b:"yes" c:~ d:~ e:"" f:"1s"}"#);
        check("- 1\n- [x, {y: z}]", r#"["1" ["x" {y:"z"}]]"#);
    }

    #[test]
    fn anchors_and_merge_keys_work() {
        check("a: &x {k: 1, l: 2}\nb:\n  <<: *x\n  k: 3", r#"{a:{k:"1" l:"2"} b:{k:"3" l:"2"}}"#);
        check("a: &x 1\nb: [*x, *x]", r#"{a:"1" b:["1" "1"]}"#);
    }

    #[test]
    fn faults_name_their_line() {
        check_error("a: 1\nb: 2\na: 3", 3, "line 1 already");
        check_error("a: [1\nb: 2", 2, "not yaml");
        check_error("a: 1\n---\nb: 2", 3, "second document");
        check_error("a: *gone", 1, "not yaml");
        check_error("a: &x [*x]", 1, "alias within");
        check_error(&"[".repeat(40), 1, "nested too deeply");
        let bomb = "a: &a [x,x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\n\
                    c: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\n\
                    e: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]";
        check_error(bomb, 5, "too large");
    }

    #[test]
    fn keys_know_their_line() {
        let Value::Map(entries) = parse("a: 1\n\nb:\n  c: 2").unwrap().value else { panic!("a mapping") };
        assert_eq!((entries[1].line, entries[1].value.line), (3, 4));
    }
}
