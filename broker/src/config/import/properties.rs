//! The text of a Java properties file.

/// A property as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Property {
    /// Where it begins, from 1.
    pub line: usize,
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// All properties in order. Java takes any text for one, and so does this.
pub fn parse(text: &str) -> Vec<Property> {
    let mut properties = Vec::new();
    let mut lines = (1..).zip(text.lines());
    while let Some((line, first)) = lines.next() {
        let mut logical = first.trim_start().to_owned();
        if logical.is_empty() || logical.starts_with(['#', '!']) {
            continue;
        }
        while is_continued(&logical) {
            logical.pop();
            let Some((_, more)) = lines.next() else { break };
            logical.push_str(more.trim_start());
        }
        let (name, value) = split(&logical);
        properties.push(Property {
            line,
            name: unescaped(name),
            value: unescaped(value).trim_end().to_owned(),
        });
    }
    properties
}

/// An odd number of backslashes at the end joins the next line.
fn is_continued(line: &str) -> bool {
    line.chars().rev().take_while(|char| *char == '\\').count() % 2 == 1
}

/// At the first `=`, `:` or space that is not escaped.
fn split(line: &str) -> (&str, &str) {
    let mut is_escaped = false;
    for (at, char) in line.char_indices() {
        if !is_escaped && (char == '=' || char == ':' || char.is_whitespace()) {
            let rest = line[at..].trim_start();
            return (&line[..at], rest.strip_prefix(['=', ':']).unwrap_or(rest).trim_start());
        }
        is_escaped = !is_escaped && char == '\\';
    }
    (line, "")
}

fn unescaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        if char != '\\' {
            out.push(char);
            continue;
        }
        match chars.next() {
            Some('t') => out.push('\t'),
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('f') => out.push('\u{c}'),
            Some('u') => {
                let digits: String = chars.by_ref().take(4).collect();
                let char = u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32);
                out.push(char.unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            Some(other) => out.push(other),
            None => {}
        }
    }
    out
}
