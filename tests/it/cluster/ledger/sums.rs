//! What holds between the rows of the books, whatever was done: at any moment, from one moment to the next, and at rest.

use std::collections::HashMap;

use super::books::{Books, Call};

/// Sums by what they are of.
#[derive(Default)]
struct Sums<'a>(HashMap<&'a str, i64>);

impl<'a> Sums<'a> {
    fn add(&mut self, of: &'a str, credits: i64) {
        *self.0.entry(of).or_default() += credits;
    }

    fn of(&self, of: &str) -> i64 {
        self.0.get(of).copied().unwrap_or(0)
    }
}

/// What does not hold and must at any moment.
pub fn at_any_moment(books: &Books) -> Vec<String> {
    let mut wrong = Vec::new();
    let drawn = calls(books, &mut wrong);
    slabs(books, &drawn, &mut wrong);
    sources(books, &mut wrong);
    wrong
}

/// Every charge is drawn from slabs of its own tenant and period. What was drawn, by slab.
fn calls(books: &Books, wrong: &mut Vec<String>) -> HashMap<String, i64> {
    let mut drawn: HashMap<String, i64> = HashMap::new();
    for call in books.calls.values() {
        let mut kinds: HashMap<&str, i64> = HashMap::new();
        for (id, credits) in call.draws() {
            let Some(slab) = books.slabs.get(&id) else {
                wrong.push(format!("{call:?} draws from {id}, which its tenant does not have"));
                continue;
            };
            let grant = slab.grant_id.as_deref().map(|id| &books.grants[id]);
            let same = (&slab.tenant_id, Some(&slab.period_id), Some(&slab.meter_id))
                == (&call.tenant_id, call.period_id.as_ref(), call.meter_id.as_ref());
            if !same || grant.is_some_and(|grant| grant.tenant_id != call.tenant_id) {
                wrong.push(format!("{call:?} draws from {slab:?}"));
            }
            *kinds.entry(grant.map_or("overage", |grant| &grant.kind)).or_default() += credits;
            *drawn.entry(id).or_default() += credits;
        }
        let of = |kind: &str| kinds.get(kind).copied().unwrap_or(0);
        let parts = [call.included, call.promotional, call.prepaid, call.overage];
        let drew = [of("included"), of("promotional"), of("prepaid"), of("overage")];
        if parts != drew || parts.iter().sum::<i64>() != call.credits {
            wrong.push(format!("{call:?} draws {drew:?}"));
        }
        if call.credits != 0 && !call.is_answer() {
            wrong.push(format!("{call:?} costs something"));
        }
        if call
            .period_id
            .as_ref()
            .is_some_and(|id| books.periods.get(id).is_none_or(|period| period.tenant_id != call.tenant_id))
        {
            wrong.push(format!("{call:?} is in a period of another tenant"));
        }
    }
    drawn
}

fn slabs(books: &Books, drawn: &HashMap<String, i64>, wrong: &mut Vec<String>) {
    let mut back = Sums::default();
    for correction in books.corrections.values().filter(|c| c.kind == "not_released") {
        let slab = correction.slab_id.as_deref().expect("a slab");
        let call: Option<&Call> = correction.call_id.as_ref().and_then(|id| books.calls.get(id));
        let part = call.and_then(|call| call.draws().into_iter().find(|(id, _)| id == slab));
        if part.is_none_or(|(_, credits)| credits != -correction.credits) {
            wrong.push(format!("{correction:?} takes back something else than {call:?} drew"));
        }
        if correction.booked == "slab" {
            back.add(slab, correction.credits);
        }
    }
    for slab in books.slabs.values() {
        let used = drawn.get(&slab.id).copied().unwrap_or(0) + back.of(&slab.id);
        if slab.used != used || slab.used < 0 || slab.used > slab.amount {
            wrong.push(format!("{used} were used of {slab:?}"));
        }
    }
}

/// What grants and periods say is what slabs and corrections say, and never more than there is.
fn sources(books: &Books, wrong: &mut Vec<String>) {
    let (mut leased, mut used, mut open) = (Sums::default(), Sums::default(), Sums::default());
    for slab in books.slabs.values() {
        let source = slab.grant_id.as_deref().unwrap_or(&slab.period_id);
        if slab.closed_at.is_none() {
            leased.add(source, slab.amount);
            open.add(source, slab.used);
        } else {
            used.add(source, slab.used);
        }
    }
    for correction in books.corrections.values() {
        match (correction.kind.as_str(), correction.booked.as_str(), &correction.grant_id) {
            ("not_released", "slab", _) => {}
            ("not_released", _, grant) => {
                used.add(grant.as_deref().unwrap_or(&correction.period_id), correction.credits);
            }
            (_, _, Some(grant)) => {
                used.add(grant, correction.credits);
                used.add(&correction.period_id, -correction.credits);
            }
            _ => wrong.push(format!("{correction:?} is of no kind")),
        }
    }
    for grant in books.grants.values() {
        let id = &*grant.id;
        if (grant.leased, grant.used) != (leased.of(id), used.of(id)) {
            wrong.push(format!("{} are leased and {} used of {grant:?}", leased.of(id), used.of(id)));
        }
        if grant.used + grant.leased + grant.expired + grant.voided > grant.granted {
            wrong.push(format!("{grant:?} is more than it is"));
        }
    }
    for period in books.periods.values() {
        let id = &*period.id;
        if (period.overage_leased, period.overage_used) != (leased.of(id), used.of(id)) {
            wrong.push(format!("{} are leased and {} used of {period:?}", leased.of(id), used.of(id)));
        }
        if period.hard_cap.is_some_and(|cap| period.overage_used + period.overage_leased > cap) {
            wrong.push(format!("{period:?} is past its cap"));
        }
        if period.closed_at.is_some() && leased.of(id) != 0 {
            wrong.push(format!("{period:?} is closed, and {} of it are held", leased.of(id)));
        }
    }
    past_the_cap(books, wrong);
}

/// What the ledger charges is within what there was, by nothing but the ledger itself.
fn past_the_cap(books: &Books, wrong: &mut Vec<String>) {
    let (owed, paid) = charged(books);
    for period in books.periods.values() {
        let owed = owed.get(&period.id).copied().unwrap_or(0);
        if period.hard_cap.is_some_and(|cap| owed > cap) || owed < 0 {
            wrong.push(format!("{owed} are owed of {period:?}"));
        }
    }
    for grant in books.grants.values() {
        let paid = paid.get(&grant.id).copied().unwrap_or(0);
        if paid < 0 || paid > grant.granted - grant.expired - grant.voided {
            wrong.push(format!("{paid} were paid by {grant:?}"));
        }
    }
}

/// What calls cost after corrections: owed by period, and paid by grant.
pub fn charged(books: &Books) -> (HashMap<String, i64>, HashMap<String, i64>) {
    let (mut owed, mut paid) = (HashMap::new(), HashMap::new());
    let mut add = |slab: &str, credits: i64| {
        let Some(slab) = books.slabs.get(slab) else { return };
        match &slab.grant_id {
            Some(grant) => *paid.entry(grant.clone()).or_default() += credits,
            None => *owed.entry(slab.period_id.clone()).or_default() += credits,
        }
    };
    for call in books.calls.values() {
        call.draws().iter().for_each(|(slab, credits)| add(slab, *credits));
    }
    for correction in books.corrections.values().filter(|c| c.kind == "not_released") {
        add(correction.slab_id.as_deref().expect("a slab"), correction.credits);
    }
    for correction in books.corrections.values().filter(|c| c.kind == "true_up") {
        *owed.entry(correction.period_id.clone()).or_default() -= correction.credits;
        *paid.entry(correction.grant_id.clone().expect("a grant")).or_default() += correction.credits;
    }
    (owed, paid)
}

/// What was settled before and is not as it was.
pub fn since(before: &Books, after: &Books) -> Vec<String> {
    let mut wrong = Vec::new();
    for (id, call) in &before.calls {
        if after.calls.get(id) != Some(call) {
            wrong.push(format!("{call:?} became {:?}", after.calls.get(id)));
        }
    }
    for (id, correction) in &before.corrections {
        if after.corrections.get(id) != Some(correction) {
            wrong.push(format!("{correction:?} became {:?}", after.corrections.get(id)));
        }
    }
    for (id, slab) in before.slabs.iter().filter(|(_, slab)| slab.closed_at.is_some()) {
        if after.slabs.get(id) != Some(slab) {
            wrong.push(format!("{slab:?} became {:?}", after.slabs.get(id)));
        }
    }
    for (id, period) in before.periods.iter().filter(|(_, period)| period.closed_at.is_some()) {
        if after.periods.get(id) != Some(period) {
            wrong.push(format!("{period:?} became {:?}", after.periods.get(id)));
        }
    }
    wrong
}

/// What does not hold once nothing runs and nobody holds anything.
pub fn at_rest(books: &Books) -> Vec<String> {
    let mut wrong = at_any_moment(books);
    for slab in books.slabs.values().filter(|slab| slab.closed_at.is_none()) {
        wrong.push(format!("{slab:?} is open"));
    }
    for grant in books.grants.values() {
        let remaining = grant.granted - grant.used - grant.expired - grant.voided;
        if grant.leased != 0 || remaining < 0 || (grant.voided_at.is_some() && remaining != 0) {
            wrong.push(format!("{remaining} remain of {grant:?}"));
        }
    }
    wrong
}
