//! How parsers are fuzzed: the same cases in every run, so that a failure is there again the next time, and more or other
//! ones on demand.
//!
//! `WEIR_TEST_FUZZ_SEED` (a number) chooses other cases, `WEIR_TEST_FUZZ_TIMES` multiplies how many there are:
//! `WEIR_TEST_FUZZ_SEED=7 WEIR_TEST_FUZZ_TIMES=100 cargo nextest run fuzz`. Self-contained, because the front-door suite
//! includes this file by its path.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::RngSeed;

/// What the cases are drawn with where nothing else is asked for.
const SEED: u64 = 2026;

/// Pieces that parsers stumble over.
const NASTY: [&[u8]; 40] = [
    b"",
    b" ",
    b"\r\n",
    b"\0",
    b"\t",
    b"\x7f",
    b"\xff",
    b"\xc3\x28",
    b"\xed\xa0\x80",
    b"\xef\xbb\xbf",
    b"\xe2\x80\xae",
    b"\"",
    b"\\",
    b"\\u0000",
    b"\\ud800",
    b"{",
    b"}",
    b"[",
    b"]",
    b"[[[[[[[[[[[[[[[[",
    b"{\"a\":{\"a\":{\"a\":{\"a\":",
    b",",
    b":",
    b";",
    b"&",
    b"=",
    b"%",
    b"%00",
    b"%ff",
    b"%74",
    b"+",
    b"-",
    b"-0",
    b"1e999",
    b"18446744073709551616",
    b"0.1",
    b"null",
    b"true",
    b"=?base64?",
    b"?=",
];

/// A setting of a fuzzing run.
fn setting(name: &str) -> Option<u64> {
    #[expect(clippy::disallowed_methods, reason = "a knob of tests, not a setting of Weir")]
    std::env::var(name).ok().map(|value| value.parse().expect("a number"))
}

/// A configuration for so many cases.
pub fn config(cases: u32) -> ProptestConfig {
    let times = setting("WEIR_TEST_FUZZ_TIMES").unwrap_or(1).clamp(1, 10_000);
    ProptestConfig {
        cases: cases.saturating_mul(u32::try_from(times).unwrap_or(1)),
        rng_seed: RngSeed::Fixed(setting("WEIR_TEST_FUZZ_SEED").unwrap_or(SEED)),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// One change to a text.
#[derive(Debug, Clone)]
pub enum Damage {
    /// Another byte in this place.
    Byte(Index, u8),
    /// Something more in this place.
    Insert(Index, Vec<u8>),
    /// From here to there is gone.
    Delete(Index, Index),
    /// From here to there so many times over.
    Repeat(Index, Index, usize),
    /// From here to there comes in that place as well.
    Copy(Index, Index, Index),
}

fn nasty() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![3 => select(NASTY.map(<[u8]>::to_vec).to_vec()), 1 => vec(any::<u8>(), 0..8)]
}

/// Up to `most` changes.
pub fn damages(most: usize) -> impl Strategy<Value = Vec<Damage>> {
    let place = any::<Index>;
    let one = prop_oneof![
        4 => (place(), any::<u8>()).prop_map(|(at, byte)| Damage::Byte(at, byte)),
        4 => (place(), nasty()).prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
        2 => (place(), place()).prop_map(|(from, to)| Damage::Delete(from, to)),
        1 => (place(), place(), 2_usize..20).prop_map(|(from, to, times)| Damage::Repeat(from, to, times)),
        2 => (place(), place(), place()).prop_map(|(from, to, at)| Damage::Copy(from, to, at)),
    ];
    vec(one, 0..=most)
}

/// A text after these changes.
pub fn damaged(text: &[u8], damages: &[Damage]) -> Vec<u8> {
    let mut text = text.to_vec();
    for damage in damages {
        let place = |at: &Index| at.index(text.len() + 1);
        let range = |a: &Index, b: &Index| {
            let (a, b) = (place(a), place(b));
            // Short pieces keep more of what makes a text nearly good.
            a.min(b)..a.max(b).min(a.min(b) + 64)
        };
        match damage {
            Damage::Byte(at, byte) if !text.is_empty() => {
                let at = at.index(text.len());
                text[at] = *byte;
            }
            Damage::Byte(_, byte) => text.push(*byte),
            Damage::Insert(at, bytes) => {
                let at = place(at);
                text.splice(at..at, bytes.iter().copied());
            }
            Damage::Delete(from, to) => {
                text.drain(range(from, to));
            }
            Damage::Repeat(from, to, times) => {
                let range = range(from, to);
                let piece = text[range.clone()].repeat(*times);
                text.splice(range, piece);
            }
            Damage::Copy(from, to, at) => {
                let (piece, at) = (text[range(from, to)].to_vec(), place(at));
                text.splice(at..at, piece);
            }
        }
    }
    text
}
