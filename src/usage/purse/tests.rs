use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

const NOW: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);
const IDLE: Duration = Duration::from_secs(3);

fn credits(micros: i64) -> Credits {
    Credits::from_micros(micros)
}

fn slab(period: PeriodId, meter: MeterId, source: Source, amount: i64) -> Slab {
    Slab {
        id: SlabId::new(),
        meter,
        period,
        source,
        amount: credits(amount),
        left: credits(amount),
        reserved: Credits::ZERO,
        until: NOW.plus(Duration::from_secs(60)),
        leased: 0,
        touched: 0,
    }
}

#[test]
fn credits_burn_in_order_and_what_is_not_used_goes_back() {
    let (purse, period, meter) = (Arc::new(Purse::new(TenantId::new())), PeriodId::new(), MeterId::new());
    let order =
        [(Source::Overage, 100), (Source::Prepaid, 10), (Source::Included, 5), (Source::Promotional, 5)];
    purse.state().add(order.map(|(source, amount)| slab(period, meter, source, amount)));
    purse.state().elsewhere = Some(credits(7));
    assert_eq!(purse.left(period, NOW), Some(credits(127)));

    let hold = purse.reserve(credits(12), period, (NOW, 0), Some(meter)).expect("enough");
    let of: Vec<_> = hold.parts.iter().map(|part| (part.source, part.credits.micros())).collect();
    assert_eq!(of, [(Source::Included, 5), (Source::Promotional, 5), (Source::Prepaid, 2)]);
    assert_eq!(purse.left(period, NOW), Some(credits(115)));
    let used = hold.into_used(credits(6));
    let of: Vec<_> = used.iter().map(|part| (part.source, part.credits.micros())).collect();
    assert_eq!(of, [(Source::Included, 5), (Source::Promotional, 1)]);
    assert_eq!(purse.left(period, NOW), Some(credits(121)));

    drop(purse.reserve(credits(114), period, (NOW, 0), Some(meter)).expect("enough"));
    assert_eq!(purse.reserve(credits(115), period, (NOW, 0), Some(meter)).err(), Some(credits(1)));
    assert_eq!(purse.reserve(credits(1), period, (NOW, 0), Some(MeterId::new())).err(), Some(credits(1)));
    assert_eq!(purse.reserve(credits(1), PeriodId::new(), (NOW, 0), Some(meter)).err(), Some(credits(1)));
}

#[test]
fn a_slab_is_given_back_when_it_is_over_and_nobody_uses_it() {
    let (purse, period, meter) = (Arc::new(Purse::new(TenantId::new())), PeriodId::new(), MeterId::new());
    let tick = |seconds: i64| seconds * 1_000_000;
    purse.state().add([slab(period, meter, Source::Prepaid, 10)]);
    let hold = purse.reserve(credits(3), period, (NOW, tick(2)), Some(meter)).expect("enough");
    purse.state().retire((NOW, tick(4)), IDLE);
    assert!(purse.state().returned.is_empty(), "in use a moment ago");
    purse.state().retire((NOW, tick(5)), IDLE);
    let part = hold.parts[0].slab;
    assert_eq!(purse.state().returned, [Return::AllBut(part, credits(3))], "a call is running");
    assert!(purse.reserve(credits(1), period, (NOW, tick(5)), Some(meter)).is_err());
    drop(hold);
    purse.state().retire((NOW, tick(9)), IDLE);
    assert_eq!(purse.state().returned[1..], [Return::All(part)]);
    assert!(!purse.is_empty(i64::MAX), "it is still to be closed");
    purse.state().returned.clear();
    assert!(purse.is_empty(i64::MAX));
}

#[test]
fn what_follows_fast_is_leased_in_larger_parts() {
    let mut state = State::default();
    let tick = |millis: i64| 1_000_000_000 + millis * 1_000;
    assert_eq!(state.appetite(credits(10), tick(0)), credits(1280));
    assert_eq!(state.appetite(credits(10), tick(100)), credits(2560));
    assert_eq!(state.appetite(credits(10), tick(200)), credits(5120));
    assert_eq!(state.appetite(credits(10), tick(10_000)), credits(5120));
    assert_eq!(state.appetite(credits(10), tick(100_000)), credits(2560));
    assert_eq!(state.appetite(Credits::MOST, tick(100_100)), Credits::MOST);
}

#[derive(Debug, Clone)]
enum Step {
    Lease(u8, i64),
    Reserve(i64),
    Use(usize, i64),
    Drop(usize),
    Settled(usize, bool),
    Retire(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..4_u8, 1..50_i64).prop_map(|(source, amount)| Step::Lease(source, amount)),
        (0..40_i64).prop_map(Step::Reserve),
        (any::<usize>(), 0..40_i64).prop_map(|(which, used)| Step::Use(which, used)),
        any::<usize>().prop_map(Step::Drop),
        (any::<usize>(), any::<bool>()).prop_map(|(which, done)| Step::Settled(which, done)),
        any::<bool>().prop_map(Step::Retire),
    ]
}

proptest! {
    /// Of every slab: what was leased is what is left, reserved and used together, and nothing is used twice.
    #[test]
    fn nothing_is_lost_and_nothing_is_spent_twice(steps in prop::collection::vec(step(), 1..60)) {
        let (purse, period, meter) = (Arc::new(Purse::new(TenantId::new())), PeriodId::new(), MeterId::new());
        let (mut amounts, mut spent) = (HashMap::new(), HashMap::<SlabId, i64>::new());
        let (mut holds, mut pending) = (Vec::new(), Vec::new());
        for step in steps {
            match step {
                Step::Lease(source, amount) => {
                    let source = [Source::Included, Source::Promotional, Source::Prepaid, Source::Overage][usize::from(source)];
                    let new = slab(period, meter, source, amount);
                    amounts.insert(new.id, amount);
                    purse.state().add([new]);
                }
                Step::Reserve(amount) => {
                    let free: Credits = purse.state().slabs.iter().filter(|s| s.until > NOW).map(|s| s.left).sum();
                    let got = purse.reserve(credits(amount), period, (NOW, 0), Some(meter));
                    prop_assert_eq!(got.is_ok(), free >= credits(amount));
                    holds.extend(got);
                }
                Step::Use(which, used) if !holds.is_empty() => {
                    let hold = holds.remove(which % holds.len());
                    let most: Credits = hold.parts.iter().map(|part| part.credits).sum();
                    let used = credits(used).min(most);
                    let parts = hold.into_used(used);
                    prop_assert_eq!(parts.iter().map(|part| part.credits).sum::<Credits>(), used);
                    pending.push(parts);
                }
                Step::Drop(which) if !holds.is_empty() => drop(holds.remove(which % holds.len())),
                Step::Settled(which, done) if !pending.is_empty() => {
                    let parts = pending.remove(which % pending.len());
                    for part in parts {
                        let used = if done { part.credits } else { Credits::ZERO };
                        purse.release(part, used);
                        *spent.entry(part.slab).or_default() += used.micros();
                    }
                }
                Step::Retire(all) => purse.state().retire((NOW, 0), if all { Duration::ZERO } else { IDLE }),
                _ => {}
            }
            let state = purse.state();
            for slab in &state.slabs {
                let used = spent.get(&slab.id).copied().unwrap_or(0);
                prop_assert!(slab.left >= Credits::ZERO && slab.reserved >= Credits::ZERO);
                prop_assert_eq!(slab.left.micros() + slab.reserved.micros() + used, slab.amount.micros());
                prop_assert!(slab.amount.micros() <= amounts[&slab.id]);
            }
        }
    }
}
