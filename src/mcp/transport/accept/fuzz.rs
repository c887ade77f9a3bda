//! `Accept` of any bytes and any order.

use http::HeaderValue;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::fuzz::{config, damaged, damages};

const RANGES: [&str; 8] = [
    "application/json",
    "text/event-stream",
    "application/*",
    "TEXT/*;q=0.1",
    "text/html",
    "application/json;q=0",
    "text/event-stream ; q=0.0",
    "*/*;q=0",
];

fn read(lines: &[Vec<u8>]) -> Accepts {
    let mut headers = HeaderMap::new();
    for value in lines.iter().filter_map(|line| HeaderValue::from_bytes(line).ok()) {
        headers.append(ACCEPT, value);
    }
    Accepts::from(&headers)
}

proptest! {
    #![proptest_config(config(2048))]

    #[test]
    fn any_bytes(lines in vec(vec(any::<u8>(), 0..40), 0..3)) {
        read(&lines);
    }

    #[test]
    fn one_line_or_many_in_any_order(ranges in vec(select(&RANGES[..]), 1..6), turn in any::<usize>()) {
        let together = read(&[ranges.join(", ").into_bytes()]);
        let mut apart: Vec<_> = ranges.iter().map(|range| range.as_bytes().to_vec()).collect();
        prop_assert_eq!(read(&apart), together);
        let turn = turn % apart.len();
        apart.rotate_left(turn);
        prop_assert_eq!(read(&apart), together);
    }

    /// Whoever names neither form, however it is spelled, is not sent one.
    #[test]
    fn a_form_that_is_not_named_is_not_accepted(damages in damages(3)) {
        let text = damaged(b"text/html, image/png;q=0.8, application/xml", &damages);
        let lower = String::from_utf8_lossy(&text).to_ascii_lowercase();
        let accepts = read(&[text]);
        let named = |names: &[&str]| names.iter().any(|name| lower.contains(name));
        let nothing = !lower.contains(|c: char| c.is_ascii_alphanumeric());
        prop_assert!(!accepts.json || nothing || named(&["application/json", "application/*", "*/*"]) || broken(&lower));
        prop_assert!(!accepts.stream || nothing || named(&["text/event-stream", "text/*", "*/*"]) || broken(&lower));
    }
}

/// Not a header value at all, so that none was sent; or one that holds no text.
fn broken(lower: &str) -> bool {
    HeaderValue::from_bytes(lower.as_bytes()).map_or(true, |value| value.to_str().is_err())
}
