//! What names and addresses in a catalogue look like, and that each of them stands for one thing.

use std::collections::HashSet;

use super::catalog::Catalog;
use crate::mcp::request::MAX_URI;

/// Longest name of a tool or prompt, in characters.
const MAX_NAME: usize = 128;

/// Checks the name of a tool (2025-11-25 "Tool Names").
///
/// # Errors
/// A sentence that says what a name is.
pub(super) fn tool(name: &str) -> Result<(), String> {
    let good = |b: u8| b.is_ascii_alphanumeric() || b"_-.".contains(&b);
    if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(good) {
        return Err(format!("a name is 1 to {MAX_NAME} characters of A-Z a-z 0-9 _ - ."));
    }
    Ok(())
}

/// Checks the name of a prompt. MCP says nothing of it but that it is unique; people type it and clients show it.
fn prompt(name: &str) -> Result<(), String> {
    let good = !name.trim().is_empty() && name.trim() == name && !name.contains(char::is_control);
    if !good || name.chars().count() > MAX_NAME {
        return Err(format!("a name is 1 to {MAX_NAME} characters on one line, without space around them"));
    }
    Ok(())
}

/// Checks that a resource's address is a URI (RFC 3986 section 3) that clients may send back.
fn uri(uri: &str) -> Result<(), String> {
    if uri.len() > MAX_URI {
        return Err(format!("a URI is at most {MAX_URI} bytes long"));
    }
    let (scheme, rest) = uri.split_once(':').unwrap_or(("", ""));
    let letter = scheme.starts_with(|c: char| c.is_ascii_alphabetic());
    let good = |b: u8| b.is_ascii_alphanumeric() || b"+-.".contains(&b);
    if !letter || !scheme.bytes().all(good) || rest.is_empty() {
        return Err("a URI begins with a scheme, such as `docs://`".to_owned());
    }
    if let Some(bad) = rest.chars().find(|c| !c.is_ascii_graphic() || "\"<>\\^`{|}".contains(*c)) {
        return Err(format!("a URI holds no {bad:?}; write it percent-encoded"));
    }
    let escapes = rest.split('%').skip(1);
    let good = |escape: &str| escape.bytes().take(2).filter(u8::is_ascii_hexdigit).count() == 2;
    if !escapes.into_iter().all(good) {
        return Err("in a URI two hexadecimal digits follow each `%`".to_owned());
    }
    Ok(())
}

/// Checks every name and address of a catalogue.
///
/// # Errors
/// A sentence that names the first one that is malformed or there twice.
pub(super) fn check(catalog: &Catalog) -> Result<(), String> {
    let tools = catalog.tools.iter().map(|entry| (&*entry.name, tool(&entry.name)));
    each("tool", tools)?;
    let prompts = catalog.prompts.iter().map(|entry| (&*entry.name, prompt(&entry.name)));
    each("prompt", prompts)?;
    each("resource", catalog.resources.iter().map(|entry| (&*entry.uri, uri(&entry.uri))))?;
    each("resource template", catalog.templates.iter().map(|entry| (entry.template.as_str(), Ok(()))))
}

fn each<'a>(kind: &str, names: impl Iterator<Item = (&'a str, Result<(), String>)>) -> Result<(), String> {
    let mut seen = HashSet::new();
    for (name, checked) in names {
        checked.map_err(|problem| format!("{kind} {name:?}: {problem}"))?;
        if !seen.insert(name) {
            return Err(format!("{kind} {name:?} is there twice; rename one"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tool_names_are_those_of_the_specification() {
        for good in ["a", "getUser", "DATA_EXPORT_v2", "admin.tools.list", "user-profile", &"x".repeat(128)] {
            assert_eq!(tool(good), Ok(()), "{good}");
        }
        for bad in ["", "a b", "a,b", "a/b", "caf\u{e9}", "a\n", &"x".repeat(129)] {
            assert!(tool(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn prompt_names_are_one_line() {
        for good in ["code_review", "Review my code", "\u{4f60}\u{597d}"] {
            assert_eq!(prompt(good), Ok(()), "{good}");
        }
        for bad in ["", " ", " a", "a\nb", &"x".repeat(129)] {
            assert!(prompt(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn resources_have_uris() {
        for good in [
            "file:///a%20b",
            "test://static-text",
            "urn:isbn:0",
            "ui://app/index.html?a=b#c",
            "https://[::1]/",
        ] {
            assert_eq!(uri(good), Ok(()), "{good}");
        }
        let long = format!("x:{}", "a".repeat(MAX_URI));
        for bad in [
            "",
            "a",
            "/a",
            ":a",
            "x:",
            "1x:a",
            "x y:a",
            "x://a b",
            "x://{a}",
            "x://%zz",
            "x://a%2",
            "x://\u{e9}",
            &long,
        ] {
            assert!(uri(bad).is_err(), "{bad}");
        }
    }
}
