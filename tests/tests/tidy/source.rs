//! Rust text without what only looks like code.

/// The same text with comments, strings and character literals turned into blanks, line by line
/// at the same places, so that words and braces in it are code.
pub fn strip(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = skipped(&chars, at);
        if end == at {
            out.push(chars[at]);
            at += 1;
            continue;
        }
        out.extend(chars[at..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
        at = end;
    }
    out
}

/// Where the comment or literal that starts at `at` ends; `at` if none does.
fn skipped(chars: &[char], at: usize) -> usize {
    let starts = |text: &str| text.chars().enumerate().all(|(i, c)| chars.get(at + i) == Some(&c));
    let after_name = at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_');
    if starts("//") {
        return (at..chars.len()).find(|i| chars[*i] == '\n').unwrap_or(chars.len());
    }
    if starts("/*") {
        return block_comment_end(chars, at);
    }
    if starts("\"") {
        return string_end(chars, at + 1);
    }
    if !after_name && (starts("r\"") || starts("r#") || starts("br\"") || starts("br#")) {
        return raw_string_end(chars, at);
    }
    if starts("'") {
        return char_end(chars, at);
    }
    at
}

fn block_comment_end(chars: &[char], at: usize) -> usize {
    let mut depth = 0;
    let mut i = at;
    while i < chars.len() {
        match (chars[i], chars.get(i + 1)) {
            ('/', Some('*')) => (depth, i) = (depth + 1, i + 1),
            ('*', Some('/')) => (depth, i) = (depth - 1, i + 1),
            _ => {}
        }
        i += 1;
        if depth == 0 {
            return i;
        }
    }
    chars.len()
}

fn string_end(chars: &[char], from: usize) -> usize {
    let mut i = from;
    while i < chars.len() && chars[i] != '"' {
        i += if chars[i] == '\\' { 2 } else { 1 };
    }
    (i + 1).min(chars.len())
}

/// The end of `r"…"`, `r#"…"#` and their byte forms; `at` for a raw identifier.
fn raw_string_end(chars: &[char], at: usize) -> usize {
    let hashes_at = at + if chars[at] == 'b' { 2 } else { 1 };
    let hashes = chars[hashes_at..].iter().take_while(|c| **c == '#').count();
    let from = hashes_at + hashes + 1;
    if chars.get(from - 1) != Some(&'"') {
        return at;
    }
    (from..chars.len())
        .find(|i| chars[*i] == '"' && chars[i + 1..].iter().take_while(|c| **c == '#').count() >= hashes)
        .map_or(chars.len(), |i| i + 1 + hashes)
}

/// The end of a character literal; `at` for a lifetime.
fn char_end(chars: &[char], at: usize) -> usize {
    match (chars.get(at + 1), chars.get(at + 2)) {
        (Some('\\'), _) => {
            let from = at + 3;
            (from..chars.len()).find(|i| chars[*i] == '\'').map_or(chars.len(), |i| i + 1)
        }
        (Some(_), Some('\'')) => at + 3,
        _ => at,
    }
}

/// Whether `word` stands in `code` by itself and not within a longer name.
pub fn has_word(code: &str, word: &str) -> bool {
    code.match_indices(word).any(|(at, _)| {
        let part_of = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        !part_of(code[..at].chars().next_back()) && !part_of(code[at + word.len()..].chars().next())
    })
}

/// A function: its name, its first line (counted from 1), and its lines.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Function {
    pub name: String,
    pub line: usize,
    pub lines: usize,
}

/// All functions with a body, nested ones too. `text` may hold comments and strings.
pub fn functions(text: &str) -> Vec<Function> {
    let code = strip(text);
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &code[at + 3..];
        let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        let Some(body) = body_bytes(rest).filter(|_| !name.is_empty()) else { continue };
        let line = code[..at].matches('\n').count() + 1;
        let lines = rest[..body].matches('\n').count() + 1;
        found.push(Function { name, line, lines });
    }
    found
}

/// Bytes from behind `fn ` to behind the closing brace; `None` for a declaration without a body.
fn body_bytes(rest: &str) -> Option<usize> {
    let (mut nested, mut braces) = (0i32, 0i32);
    for (at, c) in rest.char_indices() {
        match c {
            '(' | '[' => nested += 1,
            ')' | ']' => nested -= 1,
            '{' => braces += 1,
            '}' => {
                braces -= 1;
                if braces == 0 {
                    return Some(at + 1);
                }
            }
            ';' if nested == 0 && braces == 0 => return None,
            _ => {}
        }
    }
    None
}

#[test]
fn only_code_is_left() {
    let text = "let a = \"unsafe // \\\" {\"; // unsafe\n/* unsafe /* { */ */ 'x' '\\'' r#\"un\"safe\"# 'life b\"{\" }";
    let code = strip(text);
    assert!(!has_word(&code, "unsafe") && !code.contains('{') && !code.contains("safe"), "{code}");
    assert!(code.contains("let a =") && code.contains("'life") && code.ends_with('}'));
    assert_eq!(code.matches('\n').count(), 1);
    assert!(
        has_word("unsafe {", "unsafe")
            && !has_word("unsafe_code", "unsafe")
            && !has_word("is_unsafe", "unsafe")
    );
}

#[test]
fn functions_are_measured() {
    let text =
        "trait T { fn no_body(&self) -> [u8; 3]; }\nfn one() {}\nfn three(\n    a: u8,\n) { \"}\"; }\n";
    let told: Vec<_> = functions(text).into_iter().map(|f| (f.name, f.line, f.lines)).collect();
    assert_eq!(told, [("one".into(), 2, 1), ("three".into(), 3, 3)]);
}
