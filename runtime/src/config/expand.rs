//! `$VAR` and `${VAR}` in a configuration file.
//!
//! As in Litestream, the text is expanded before it is parsed, `$PID` is the process, and a
//! variable that is not set stands for nothing; here that is worth a warning, since an empty
//! password or path is seldom meant. Comment lines are left alone.

/// What a variable stands for, if it is set.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Expands `text` with `lookup`, adding a sentence to `warnings` for each unknown variable.
pub fn expand(text: &str, lookup: Lookup<'_>, warnings: &mut Vec<String>) -> String {
    let mut out = String::with_capacity(text.len());
    for (number, line) in text.split_inclusive('\n').enumerate() {
        if line.trim_start().starts_with('#') {
            out.push_str(line);
        } else {
            expand_line(line, number + 1, lookup, &mut out, warnings);
        }
    }
    out
}

fn expand_line(line: &str, number: usize, lookup: Lookup<'_>, out: &mut String, warnings: &mut Vec<String>) {
    let mut rest = line;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let braced = after.strip_prefix('{').and_then(|inner| {
            let end = inner.find('}')?;
            is_name(&inner[..end]).then_some((&inner[..end], &inner[end + 1..]))
        });
        let plain = || {
            let end = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(after.len());
            is_name(&after[..end]).then_some((&after[..end], &after[end..]))
        };
        // A dollar sign that no name follows is a dollar sign.
        let Some((name, remaining)) = braced.or_else(plain) else {
            out.push('$');
            rest = after;
            continue;
        };
        match lookup(name) {
            Some(value) => out.push_str(&value),
            None => warnings.push(format!("line {number}: ${name} is not set and stands for nothing")),
        }
        rest = remaining;
    }
    out.push_str(rest);
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_replaced_and_missing_ones_told() {
        let lookup = |name: &str| match name {
            "HOME" => Some("/home/a".to_owned()),
            "_x1" => Some("X".to_owned()),
            _ => None,
        };
        let check = |text: &str, expected: &str, warned: usize| {
            let mut warnings = Vec::new();
            assert_eq!(expand(text, &lookup, &mut warnings), expected);
            assert_eq!(warnings.len(), warned, "{warnings:?}");
        };
        check("path: $HOME/db", "path: /home/a/db", 0);
        check("path: ${HOME}db${_x1}$_x1", "path: /home/adbXX", 0);
        check("a: $GONE.\nb: ${GONE}", "a: .\nb: ", 2);
        check("cost: 5$ $5 ${ ${5} $", "cost: 5$ $5 ${ ${5} $", 0);
        check("# $GONE\n  # $GONE\nx: 1 # $HOME", "# $GONE\n  # $GONE\nx: 1 # /home/a", 0);
    }
}
