//! Objects of one kind, in the order in which they were made, and pages of them (docs.stripe.com/api/pagination).

use std::collections::HashMap;

use http::StatusCode;
use serde_json::{Map, Value, json};

use super::refusal::Refusal;

/// Objects on one page where nothing is said, and at most.
const PAGE: i64 = 10;
const LONGEST_PAGE: i64 = 100;

/// Objects by id.
#[derive(Default)]
pub struct Shelf {
    rows: Vec<Option<Value>>,
    places: HashMap<String, usize>,
}

impl Shelf {
    /// Takes an object, which has an `id`.
    pub fn put(&mut self, object: Value) {
        if let Some(id) = object["id"].as_str() {
            self.places.insert(id.to_owned(), self.rows.len());
            self.rows.push(Some(object));
        }
    }

    /// The object of this id.
    pub fn get(&self, id: &str) -> Option<&Value> {
        self.rows.get(*self.places.get(id)?)?.as_ref()
    }

    /// The same, to change it.
    pub fn get_mut(&mut self, id: &str) -> Option<&mut Value> {
        self.rows.get_mut(*self.places.get(id)?)?.as_mut()
    }

    /// Takes the object away.
    pub fn remove(&mut self, id: &str) -> Option<Value> {
        self.rows.get_mut(self.places.remove(id)?)?.take()
    }

    /// How many there ever were.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// The objects, the newest first, without those of which only a trace is left.
    pub fn newest_first(&self) -> impl Iterator<Item = &Value> {
        self.rows.iter().rev().flatten().filter(|object| object["deleted"] != json!(true))
    }
}

/// One page of `found`, which has the newest first, as Stripe lists it.
///
/// # Errors
/// 400 where the limit is out of range or a cursor is no object.
pub fn page<'a>(
    found: impl Iterator<Item = &'a Value>,
    asked: &Map<String, Value>,
    url: &str,
) -> Result<Value, Refusal> {
    let found: Vec<_> = found.collect();
    let limit = asked.get("limit").and_then(Value::as_i64).unwrap_or(PAGE);
    if !(1..=LONGEST_PAGE).contains(&limit) {
        let message = format!("limit must be between 1 and {LONGEST_PAGE}");
        return Err(Refusal::invalid(Some("parameter_invalid_integer"), "limit", message));
    }
    let limit = usize::try_from(limit).unwrap_or_default();
    let place = |cursor: &str| match asked.get(cursor).and_then(Value::as_str) {
        None => Ok(None),
        Some(id) => match found.iter().position(|object| object["id"] == id) {
            Some(place) => Ok(Some(place)),
            None => Err(Refusal::no_such("object", id, cursor, StatusCode::BAD_REQUEST)),
        },
    };
    let (after, before) = (place("starting_after")?, place("ending_before")?);
    if after.is_some() && before.is_some() {
        let message = "You can only specify one of starting_after and ending_before";
        return Err(Refusal::invalid(None, "ending_before", message));
    }
    let (rest, has_more) = if let Some(before) = before {
        let from = before.saturating_sub(limit);
        (&found[from..before], from > 0)
    } else {
        let rest = &found[after.map_or(0, |place| place + 1)..];
        (&rest[..limit.min(rest.len())], rest.len() > limit)
    };
    Ok(json!({ "object": "list", "data": rest, "has_more": has_more, "url": url }))
}

/// Whether a list is asked for objects of this time: a time, or bounds of it.
pub fn in_range(range: Option<&Value>, time: &Value) -> bool {
    let Some(range) = range else { return true };
    let time = time.as_i64().unwrap_or_default();
    let bound = |name: &str, holds: fn(i64, i64) -> bool| {
        range.get(name).and_then(Value::as_i64).is_none_or(|bound| holds(time, bound))
    };
    match range.as_i64() {
        Some(exactly) => time == exactly,
        None => {
            bound("gt", |t, b| t > b)
                && bound("gte", |t, b| t >= b)
                && bound("lt", |t, b| t < b)
                && bound("lte", |t, b| t <= b)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(shelf: &Shelf, asked: &Value) -> Result<String, Refusal> {
        let asked = asked.as_object().expect("parameters");
        let list = page(shelf.newest_first(), asked, "/v1/things")?;
        let ids: Vec<_> =
            list["data"].as_array().expect("data").iter().map(|o| o["id"].as_str().expect("id")).collect();
        Ok(format!("{} {}", ids.join(","), list["has_more"]))
    }

    #[test]
    fn pages_go_both_ways() {
        let mut shelf = Shelf::default();
        (0..12).for_each(|n| shelf.put(json!({ "id": format!("t{n}") })));
        assert_eq!(shelf.remove("t6").map(|gone| gone["id"].clone()), Some(json!("t6")));
        for (asked, page) in [
            (json!({}), "t11,t10,t9,t8,t7,t5,t4,t3,t2,t1 true"),
            (json!({ "limit": 2 }), "t11,t10 true"),
            (json!({ "limit": 2, "starting_after": "t3" }), "t2,t1 true"),
            (json!({ "limit": 2, "starting_after": "t2" }), "t1,t0 false"),
            (json!({ "starting_after": "t0" }), " false"),
            (json!({ "limit": 2, "ending_before": "t5" }), "t8,t7 true"),
            (json!({ "limit": 2, "ending_before": "t9" }), "t11,t10 false"),
        ] {
            assert_eq!(ids(&shelf, &asked).expect("a page"), page, "{asked}");
        }
        for asked in [json!({ "limit": 0 }), json!({ "limit": 101 }), json!({ "starting_after": "t6" })] {
            assert_eq!(ids(&shelf, &asked).expect_err("refused").status, 400, "{asked}");
        }
    }
}
