//! A command line in a string, divided as a shell would divide it.
//!
//! Blanks divide words, quotes and backslashes keep them together; nothing is expanded. What a
//! shell would act upon (`|`, `;`, `&`, `<`, `>`, brackets, backquotes, a line break) is refused
//! when it stands bare: there is no shell, and Litestream would leave out the rest of the line
//! without a word. The crates for this take a bare `#` for a comment and have no such errors.

/// The words of a command; at least one.
///
/// # Errors
/// What is wrong with it, for people.
pub fn split(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut rest = text.trim_end().chars();
    while let Some(c) = rest.next() {
        match c {
            ' ' | '\t' => words.extend(word.take()),
            '\'' => single(word.get_or_insert_default(), &mut rest)?,
            '"' => double(word.get_or_insert_default(), &mut rest)?,
            '\\' => word.get_or_insert_default().push(rest.next().ok_or("it ends with a backslash")?),
            '\n' => return Err("it has a line break outside of quotes".to_owned()),
            '|' | ';' | '&' | '<' | '>' | '(' | ')' | '`' => {
                return Err(format!("{c:?} stands outside of quotes, and there is no shell to act upon it"));
            }
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    match words.first() {
        Some(program) if !program.is_empty() => Ok(words),
        _ => Err("it names no program".to_owned()),
    }
}

fn single(word: &mut String, rest: &mut std::str::Chars<'_>) -> Result<(), String> {
    for c in rest {
        match c {
            '\'' => return Ok(()),
            c => word.push(c),
        }
    }
    Err("a single quote is not closed".to_owned())
}

fn double(word: &mut String, rest: &mut std::str::Chars<'_>) -> Result<(), String> {
    const UNCLOSED: &str = "a double quote is not closed";
    while let Some(c) = rest.next() {
        match c {
            '"' => return Ok(()),
            '\\' => match rest.next().ok_or(UNCLOSED)? {
                c @ ('"' | '\\' | '$' | '`') => word.push(c),
                c => word.extend(['\\', c]),
            },
            c => word.push(c),
        }
    }
    Err(UNCLOSED.to_owned())
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn words_are_divided_as_by_a_shell() {
        for (text, words) in [
            ("app", &["app"][..]),
            ("  app\t-x  1 ", &["app", "-x", "1"]),
            (r#"sh -c 'a; b "c"' "d 'e'" f\ g"#, &["sh", "-c", "a; b \"c\"", "d 'e'", "f g"]),
            (
                r#"app --colour #fff '' x""y $HOME a=b"#,
                &["app", "--colour", "#fff", "", "xy", "$HOME", "a=b"],
            ),
            (r#"app "a\"b\\c\d" \| 'é'"#, &["app", r#"a"b\c\d"#, "|", "é"]),
            ("app 'two\nlines'\n", &["app", "two\nlines"]),
        ] {
            assert_eq!(
                split(text).as_deref(),
                Ok(&words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>()[..])
            );
        }
    }

    #[test]
    fn what_needs_a_shell_is_refused() {
        for (text, error) in [
            ("", "names no program"),
            ("'' x", "names no program"),
            ("a | b", "'|' stands outside"),
            ("a && b", "'&' stands outside"),
            ("a > log", "'>' stands outside"),
            ("a $(b)", "'(' stands outside"),
            ("a\nb", "line break"),
            ("a 'b", "single quote is not closed"),
            ("a \"b", "double quote is not closed"),
            ("a \"b\\", "double quote is not closed"),
            ("a \\", "ends with a backslash"),
        ] {
            let said = split(text).unwrap_err();
            assert!(said.contains(error), "{text:?}: {said}");
        }
    }
}
