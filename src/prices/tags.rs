//! Price tags: what a descriptor of `tools/list` says of the tool's price, in `_meta["dev.weir/price"]`.

use std::collections::BTreeMap;
use std::sync::Arc;

use quick_cache::Weighter;
use quick_cache::sync::Cache;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::{Price, PriceVersion};
use crate::credits::Credits;
use crate::id::PriceVersionId;
use crate::providers::ToolEntry;

/// The key of `_meta`.
const KEY: &str = "dev.weir/price";
/// Bytes of descriptors that are kept.
const KEPT_BYTES: u64 = 32 << 20;
/// About how large one is.
const USUAL_BYTES: u64 = 4096;

/// What a client is told of a price. Only what applies.
#[derive(Debug, Default, Serialize)]
struct Tag {
    /// Calls are refused.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    unpriced: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    per_call: Option<Credits>,
    #[serde(skip_serializing_if = "Credits::is_zero")]
    per_kib: Credits,
    #[serde(skip_serializing_if = "Credits::is_zero")]
    per_second: Credits,
    #[serde(skip_serializing_if = "Option::is_none")]
    most: Option<Credits>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    errors: bool,
}

impl Tag {
    fn free() -> Self {
        Self { per_call: Some(Credits::ZERO), ..Self::default() }
    }

    fn of(price: &Price) -> Self {
        if price.is_free() {
            return Self::free();
        }
        let Price { per_call, per_kib, per_second, errors, .. } = *price;
        let grows = per_kib.is_positive() || per_second.is_positive();
        let most = grows.then(|| price.most());
        Self { unpriced: false, per_call: Some(per_call), per_kib, per_second, most, errors }
    }

    fn under(version: Option<&PriceVersion>, server: &str, entry: &ToolEntry) -> Self {
        let Some(version) = version else { return Self::free() };
        match version.terms.price_for(server, &entry.name, entry.free) {
            Some(price) => Self::of(&price),
            None => Self { unpriced: true, ..Self::default() },
        }
    }
}

/// A descriptor with a price.
pub(crate) struct Tagged {
    /// Kept, so that nothing else gets its address while that stands in a key.
    entry: Arc<ToolEntry>,
    modern: Option<Box<RawValue>>,
    older: Option<Box<RawValue>>,
}

impl Tagged {
    fn new(version: Option<&PriceVersion>, server: &str, entry: &Arc<ToolEntry>) -> Self {
        let tag = to_raw_value(&Tag::under(version, server, entry)).ok();
        let with = |descriptor: &RawValue| with_meta(descriptor, KEY, tag.clone()?);
        let older = entry.older.as_deref().and_then(with);
        Self { modern: with(&entry.descriptor), older, entry: entry.clone() }
    }

    /// The `Tool` object as clients of the modern era get it, or those from before.
    pub(crate) fn shown(&self, modern: bool) -> &RawValue {
        // What is no object is shown as it is.
        if modern || self.entry.older.is_none() {
            self.modern.as_deref().unwrap_or(&self.entry.descriptor)
        } else {
            self.older.as_deref().unwrap_or_else(|| self.entry.shown(false))
        }
    }
}

/// The descriptor with one more entry of `_meta`. Everything else stays as it was written, big numbers too.
fn with_meta(descriptor: &RawValue, key: &str, value: Box<RawValue>) -> Option<Box<RawValue>> {
    let mut fields: BTreeMap<String, Box<RawValue>> = serde_json::from_str(descriptor.get()).ok()?;
    let mut meta: BTreeMap<String, Box<RawValue>> =
        fields.get("_meta").and_then(|meta| serde_json::from_str(meta.get()).ok()).unwrap_or_default();
    meta.insert(key.to_owned(), value);
    fields.insert("_meta".to_owned(), to_raw_value(&meta).ok()?);
    to_raw_value(&fields).ok()
}

/// The version, if any, the server as the registry has it, and the address of the entry.
type Key = (Option<PriceVersionId>, Arc<str>, usize);

#[derive(Clone)]
struct Size;

impl Weighter<Key, Arc<Tagged>> for Size {
    fn weight(&self, _: &Key, tagged: &Arc<Tagged>) -> u64 {
        let size = |text: &Option<Box<RawValue>>| text.as_ref().map_or(0, |text| text.get().len() as u64);
        // The entry itself is counted like its descriptors: it may be kept by nothing else.
        512 + 2 * (size(&tagged.modern) + size(&tagged.older))
    }
}

/// Descriptors that were made, one for each version and entry.
pub(super) struct Tags(Cache<Key, Arc<Tagged>, Size>);

impl Tags {
    pub(super) fn new() -> Self {
        let entries = usize::try_from(KEPT_BYTES / USUAL_BYTES).unwrap_or(1);
        Self(Cache::with_weighter(entries, KEPT_BYTES, Size))
    }

    pub(super) fn of(
        &self,
        version: Option<&PriceVersion>,
        server: &Arc<str>,
        entry: &Arc<ToolEntry>,
    ) -> Arc<Tagged> {
        let key = (version.map(|version| version.id), server.clone(), Arc::as_ptr(entry).addr());
        if let Some(tagged) = self.0.get(&key) {
            return tagged;
        }
        let tagged = Arc::new(Tagged::new(version, server, entry));
        self.0.insert(key, tagged.clone());
        tagged
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::clock::Timestamp;
    use crate::providers::ToolSpec;

    fn entry(spec: ToolSpec) -> Arc<ToolEntry> {
        let entry = spec.entry(&"lab".into(), || json!({ "type": "object" })).expect("a tool");
        Arc::new(entry)
    }

    fn version(terms: &Value) -> PriceVersion {
        PriceVersion {
            id: PriceVersionId::new(),
            plan: "p".parse().expect("a name"),
            number: 1,
            effective_at: Timestamp::from_micros(0),
            published_at: Timestamp::from_micros(0),
            published_by: "cli".to_owned(),
            terms: serde_json::from_value(terms.clone()).expect("terms"),
            digest: String::new(),
        }
    }

    fn value(shown: &RawValue) -> Value {
        serde_json::from_str(shown.get()).expect("JSON")
    }

    #[test]
    fn a_tag_says_only_what_applies() {
        let tools = json!([
            { "name": "flat", "per_call": "0.25" },
            { "name": "grows", "per_call": 0, "per_kib": "0.01", "per_second": 2, "most": 3, "errors": true },
            { "name": "gift", "per_call": 0, "errors": true },
            { "name": "other", "server": "core", "per_call": 1 },
        ]);
        let strict = version(&json!({ "kind": "usage", "tools": tools }));
        let open = version(&json!({ "kind": "usage", "tools": tools, "unpriced": "free" }));
        let free = json!({ "per_call": "0" });
        for (version, spec, expected) in [
            (Some(&strict), ToolSpec::new("flat"), json!({ "per_call": "0.25" })),
            (
                Some(&strict),
                ToolSpec::new("grows"),
                json!({ "per_call": "0", "per_kib": "0.01", "per_second": "2", "most": "3", "errors": true }),
            ),
            (Some(&strict), ToolSpec::new("gift"), free.clone()),
            (Some(&strict), ToolSpec::new("flat").free(), free.clone()),
            (Some(&strict), ToolSpec::new("other"), json!({ "unpriced": true })),
            (Some(&open), ToolSpec::new("other"), free.clone()),
            (None, ToolSpec::new("flat"), free.clone()),
        ] {
            let text = format!("{spec:?}");
            let tagged = Tags::new().of(version, &"lab".into(), &entry(spec));
            for shown in [tagged.shown(true), tagged.shown(false)] {
                assert_eq!(value(shown)["_meta"], json!({ "dev.weir/price": expected }), "{text}");
            }
        }
    }

    #[test]
    fn the_rest_of_a_descriptor_stays_as_it_is() {
        let spec = ToolSpec::new("flat")
            .field("_meta", json!({ "vendor/x": 1, "dev.weir/price": "mine" }))
            .output_schema(json!({ "type": "array" }));
        let entry = entry(spec);
        let tagged = Tags::new().of(None, &"lab".into(), &entry);
        for modern in [true, false] {
            let mut expected = value(entry.shown(modern));
            expected["_meta"]["dev.weir/price"] = json!({ "per_call": "0" });
            assert_eq!(value(tagged.shown(modern)), expected);
        }
        assert_ne!(tagged.shown(true).get(), tagged.shown(false).get());
        let raw = |text: &str| RawValue::from_string(text.to_owned()).expect("JSON");
        let exact = with_meta(&raw(r#"{"x":1.000000000000000000001,"_meta":7}"#), "k", raw("1"));
        assert_eq!(exact.expect("an object").get(), r#"{"_meta":{"k":1},"x":1.000000000000000000001}"#);
    }

    #[test]
    fn a_descriptor_is_made_once_and_few_are_kept() {
        let (tags, server) = (Tags::new(), "lab".into());
        let one = version(&json!({ "kind": "usage" }));
        let (a, b) = (entry(ToolSpec::new("a")), entry(ToolSpec::new("b")));
        let first = tags.of(Some(&one), &server, &a);
        assert!(Arc::ptr_eq(&first, &tags.of(Some(&one), &server, &a)));
        assert!(!Arc::ptr_eq(&first, &tags.of(None, &server, &a)));
        assert!(!Arc::ptr_eq(&first, &tags.of(Some(&one), &"core".into(), &a)));
        tags.of(Some(&one), &server, &b);
        assert_eq!(tags.len(), 4);
        let large = entry(ToolSpec::new("a").description(&"x".repeat(1 << 20)));
        for _ in 0..40 {
            tags.of(Some(&version(&json!({ "kind": "usage" }))), &server, &large);
        }
        assert!(tags.len() < 20, "{}", tags.len());
    }
}
