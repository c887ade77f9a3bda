//! Matching of URIs against RFC 6570 templates of levels 1 and 2: `{name}` for one path segment, `{+name}` for
//! anything.

use std::collections::BTreeMap;

/// The variables that a URI gave a template.
pub type Variables = BTreeMap<String, String>;

/// A parsed template.
#[derive(Debug, Clone)]
pub struct UriTemplate {
    text: String,
    parts: Vec<Part>,
}

#[derive(Debug, Clone)]
enum Part {
    Literal(String),
    Variable { name: String, reserved: bool },
}

impl UriTemplate {
    /// Parses a template.
    ///
    /// # Errors
    /// A sentence where braces do not match, a variable has no name, or two variables touch.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(open) = rest.find('{') {
            let close = rest[open..].find('}').ok_or_else(|| format!("{text}: `{{` without `}}`"))? + open;
            if open > 0 {
                parts.push(Part::Literal(rest[..open].to_owned()));
            } else if matches!(parts.last(), Some(Part::Variable { .. })) {
                return Err(format!("{text}: two variables need text between them"));
            }
            let expression = &rest[open + 1..close];
            let name = expression.strip_prefix('+').unwrap_or(expression);
            if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
                return Err(format!("{text}: expected {{name}} or {{+name}}, found {{{expression}}}"));
            }
            parts.push(Part::Variable { name: name.to_owned(), reserved: expression.starts_with('+') });
            rest = &rest[close + 1..];
        }
        if !rest.is_empty() {
            parts.push(Part::Literal(rest.to_owned()));
        }
        Ok(Self { text: text.to_owned(), parts })
    }

    /// The template as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The variables, if `uri` fits.
    #[must_use]
    pub fn matches(&self, uri: &str) -> Option<Variables> {
        let mut found = Variables::new();
        let mut rest = uri;
        let mut parts = self.parts.iter().peekable();
        while let Some(part) = parts.next() {
            match part {
                Part::Literal(literal) => rest = rest.strip_prefix(literal.as_str())?,
                Part::Variable { name, reserved } => {
                    let end = match parts.peek() {
                        Some(Part::Literal(next)) => rest.find(next.as_str())?,
                        _ => rest.len(),
                    };
                    let value = &rest[..end];
                    if value.is_empty() || (!reserved && value.contains(['/', '?', '#'])) {
                        return None;
                    }
                    found.insert(name.clone(), value.to_owned());
                    rest = &rest[end..];
                }
            }
        }
        rest.is_empty().then_some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_take_one_segment_or_with_plus_anything() {
        let template = UriTemplate::parse("logs://calls/{date}").expect("a template");
        assert_eq!(template.matches("logs://calls/2026-11-21").expect("fits")["date"], "2026-11-21");
        assert!(template.matches("logs://calls/").is_none());
        assert!(template.matches("logs://calls/a/b").is_none());
        let page = UriTemplate::parse("x://{id}/data/{+rest}").expect("a template");
        assert_eq!(page.matches("x://7/data/a/b?c").expect("fits")["rest"], "a/b?c");
    }

    #[test]
    fn broken_templates_are_refused() {
        for text in ["x://{", "x://{}", "x://{a}{b}", "x://{a,b}"] {
            assert!(UriTemplate::parse(text).is_err(), "{text}");
        }
    }
}
