//! Pages for a browser, in the place of Checkout, the customer portal, and an invoice's page. Each says that it is a stand-in
//! and moves no money. HTML and CSS only, nothing from elsewhere.

mod checkout;
mod invoice;
mod portal;

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use http::request::Parts;
use serde_json::Value;

use super::answer::Answer;
use super::cards::{CARDS, Conduct};
use super::look::text;
use super::{Shared, form};

/// Currencies without a smaller unit (docs.stripe.com/currencies#zero-decimal).
const WHOLE_UNITS: &[&str] = &[
    "bif", "clp", "djf", "gnf", "jpy", "kmf", "krw", "mga", "pyg", "rwf", "ugx", "vnd", "vuv", "xaf", "xof",
    "xpf",
];
const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;color:#1a2233;background:#f4f5f8;margin:0}\
    main{max-width:34rem;margin:2rem auto;padding:1.5rem 2rem;background:#fff;border-radius:8px;box-shadow:0 1px 4px #0003}\
    .standin{background:#ffe9a8;padding:.6rem 1rem;text-align:center;font-weight:600}\
    table{width:100%;border-collapse:collapse;margin:1rem 0}td,th{padding:.35rem 0;text-align:left;\
    border-bottom:1px solid #e3e6ee}td:last-child,th:last-child{text-align:right}\
    input{font:inherit;width:100%;box-sizing:border-box;padding:.5rem;margin:.3rem 0 .8rem;border:1px solid #99a;\
    border-radius:4px}button{font:inherit;padding:.55rem 1.2rem;border:0;border-radius:4px;background:#3a4bd8;color:#fff;\
    cursor:pointer}button.plain{background:#e3e6ee;color:#1a2233}.wrong{color:#b00020}details{margin:1rem 0;color:#556}";

/// Answers for a page, or nothing where there is none of this path.
pub fn answer(shared: &Arc<Shared>, parts: &Parts, body: &Bytes) -> Option<Answer> {
    let path: Vec<_> = parts.uri.path().strip_prefix("/_standin/")?.split('/').collect();
    let asked = match parts.method.as_str() {
        "GET" => None,
        "POST" if is_form(parts, body) => Some(Value::Object(form::parse(body).ok()?)),
        _ => return None,
    };
    let [kind, id] = path.as_slice() else { return None };
    match *kind {
        "checkout" => Some(checkout::answer(shared, id, asked.as_ref())),
        "invoices" => Some(invoice::answer(shared, id, asked.as_ref())),
        "portal" => Some(portal::answer(shared, id, asked.as_ref())),
        _ => None,
    }
}

/// Whether the request is a page's form. Whoever sends JSON by hand often says that it is one, too.
pub fn is_form(parts: &Parts, body: &Bytes) -> bool {
    let media_type = parts.headers.get(http::header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    !body.trim_ascii_start().starts_with(b"{")
        && media_type.is_some_and(|media_type| media_type.starts_with("application/x-www-form-urlencoded"))
}

/// A whole page.
fn page(status: StatusCode, title: &str, body: &str) -> Answer {
    let title = escape(title);
    let html = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{title} (stand-in, not Stripe)</title>\
         <style>{STYLE}</style></head><body><p class=\"standin\">This is a stand-in, not Stripe. No money moves. Give no \
         real card.</p><main><h1>{title}</h1>{body}</main></body></html>\n"
    );
    Answer::new(status, "text/html; charset=utf-8", html)
        .with(
            "content-security-policy",
            "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
        )
        .with("cache-control", "no-store")
}

/// A page that says that there is no such page, or no more.
fn gone(what: &str) -> Answer {
    page(StatusCode::NOT_FOUND, "Nothing here", &format!("<p>{}</p>", escape(what)))
}

/// Sends the browser elsewhere with GET.
fn see_other(url: &str) -> Answer {
    Answer::new(StatusCode::SEE_OTHER, "text/plain; charset=utf-8", "").with("location", url)
}

/// A card's field, with what went wrong the last time, and the cards that there are.
fn card_fields(button: &str, wrong: Option<&str>) -> String {
    let wrong = wrong
        .map_or(String::new(), |wrong| format!("<p class=\"wrong\" role=\"alert\">{}</p>", escape(wrong)));
    format!(
        "{wrong}<label>Card number <input name=\"card\" value=\"4242 4242 4242 4242\" inputmode=\"numeric\" \
         autocomplete=\"off\" required></label><button name=\"do\" value=\"pay\">{}</button>",
        escape(button)
    )
}

/// The cards that the stand-in knows, and what they do.
fn cards() -> String {
    let rows: String = CARDS
        .iter()
        .map(|card| {
            let conduct = match card.conduct {
                Conduct::Pays => "pays".to_owned(),
                Conduct::Refused(decline) => format!("is refused: {}", decline.message),
                Conduct::Declined(decline) => format!("can be kept, pays nothing: {}", decline.message),
                Conduct::Disputes(reason) => format!("pays, and disputes it at once: {reason}"),
            };
            format!("<tr><td>{}</td><td>{}</td></tr>", card.number, escape(&conduct))
        })
        .collect();
    format!("<details><summary>Test cards</summary><table>{rows}</table></details>")
}

/// A field of a form that was sent.
fn sent<'a>(asked: Option<&'a Value>, name: &str) -> Option<&'a str> {
    asked.map(|asked| text(asked, name)).filter(|value| !value.is_empty())
}

/// An amount in the smallest unit, as people write it.
fn amount(sum: i64, currency: &Value) -> String {
    let currency = currency.as_str().unwrap_or_default();
    let upper = currency.to_uppercase();
    if WHOLE_UNITS.contains(&currency) {
        return format!("{sum} {upper}");
    }
    let sign = if sum < 0 { "-" } else { "" };
    let sum = sum.unsigned_abs();
    format!("{sign}{}.{:02} {upper}", sum / 100, sum % 100)
}

/// What one costs, which may be less than the smallest unit of its currency.
fn unit_price(price: &Value) -> String {
    let unit = text(price, "unit_amount_decimal");
    let currency = text(price, "currency");
    let upper = currency.to_uppercase();
    if WHOLE_UNITS.contains(&currency) {
        return format!("{unit} {upper}");
    }
    let (whole, part) = unit.split_once('.').unwrap_or((unit, ""));
    let whole = format!("{whole:0>3}");
    let (units, hundredths) = whole.split_at(whole.len() - 2);
    format!("{units}.{hundredths}{part} {upper}")
}

/// A time in seconds, as a day.
fn day(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds)
        .map_or_else(|_| "?".to_owned(), |time| time.to_string()[..10].to_owned())
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn amounts_are_as_people_write_them() {
        for (sum, currency, text) in [
            (0, "usd", "0.00 USD"),
            (-5, "usd", "-0.05 USD"),
            (123_456, "eur", "1234.56 EUR"),
            (7, "jpy", "7 JPY"),
        ] {
            assert_eq!(amount(sum, &json!(currency)), text);
        }
        for (unit, currency, text) in [
            ("1000", "usd", "10.00 USD"),
            ("0.25", "usd", "0.0025 USD"),
            ("7", "chf", "0.07 CHF"),
            ("0.5", "jpy", "0.5 JPY"),
        ] {
            assert_eq!(unit_price(&json!({ "unit_amount_decimal": unit, "currency": currency })), text);
        }
        assert_eq!(escape("<a href=\"x\">&"), "&lt;a href=&quot;x&quot;&gt;&amp;");
    }
}
