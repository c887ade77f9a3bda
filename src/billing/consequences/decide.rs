//! What an account is to be, by its subscription and its invoices. Pure.

use std::time::Duration;

use crate::accounts::{Access, Wanted};
use crate::clock::Timestamp;
use crate::config;
use crate::db::mirror::subscriptions::Subscription;
use crate::error::{Error, Result};
use crate::plans::PlanName;

/// What unpaid invoices and ended subscriptions mean.
#[derive(Debug, Clone)]
pub(super) struct Policy {
    /// The plan after a subscription.
    pub(super) after: PlanName,
    /// So long after an invoice was to be paid nothing happens.
    pub(super) grace: Duration,
    /// And so long after that nothing more may be owed; then nothing is sold.
    pub(super) restricted: Duration,
}

impl Policy {
    pub(super) fn new(config: &config::Billing) -> Result<Self> {
        let days = |days: u32| Duration::from_secs(u64::from(days) * 86_400);
        Ok(Self {
            after: config.after_plan.parse()?,
            grace: days(config.grace_days),
            restricted: days(config.restricted_days),
        })
    }

    /// What may still be done where an invoice is unpaid since then.
    fn access(&self, unpaid: Option<Timestamp>, now: Timestamp) -> Access {
        let Some(since) = unpaid else { return Access::Open };
        let restricted = since.plus(self.grace);
        if now < restricted {
            Access::Grace
        } else if now < restricted.plus(self.restricted) {
            Access::Restricted
        } else {
            Access::Suspended
        }
    }
}

/// What else is known of a tenant.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Money<'a> {
    /// The subscription that its account follows now.
    pub(super) followed: Option<&'a str>,
    /// When the oldest of its unpaid invoices was to be paid.
    pub(super) unpaid: Option<Timestamp>,
    /// Whether it takes a payment back by a dispute that is not decided.
    pub(super) is_disputed: bool,
}

/// What follows from a tenant's subscriptions, newest first, and from its money; and why not all of it does, where that is so: what it
/// may do follows in any case.
///
/// A subscription that was to end by now has ended, whether Stripe has said so or not: the news of it may come after that of its last
/// invoice.
pub(super) fn decide(
    subscriptions: &[Subscription],
    Money { followed, unpaid, is_disputed }: Money<'_>,
    policy: &Policy,
    now: Timestamp,
) -> (Wanted, Option<Error>) {
    let mut access = policy.access(unpaid, now);
    if is_disputed {
        access = Access::Restricted.max_with(access);
    }
    let goes_on = |it: &&Subscription| it.is_open() && it.ends_at().is_none_or(|end| end > now);
    let open: Vec<_> = subscriptions.iter().filter(goes_on).collect();
    if open.len() > 1 {
        let ids: Vec<_> = open.iter().map(|it| it.id.as_str()).collect();
        tracing::error!(
            ?ids,
            "a tenant has several subscriptions, and pays for each; cancel all but one at Stripe"
        );
    }
    // The one that is followed stays so, as long as it is there.
    let chosen = open.iter().find(|it| Some(it.id.as_str()) == followed).or_else(|| open.first());
    let Some(subscription) = chosen else {
        let ended = followed.is_some();
        // Where Stripe has not said so yet, it will.
        let is_told = !subscriptions.iter().any(|it| it.is_open() && Some(it.id.as_str()) == followed);
        let wanted = Wanted {
            plan: ended.then(|| policy.after.clone()),
            next: ended.then_some(None),
            subscription: (ended && is_told).then_some(None),
            access: Some(access),
            ..Wanted::default()
        };
        return (wanted, None);
    };
    let access = Some(match subscription.status.as_str() {
        "trialing" => Access::Trial.max_with(access),
        "paused" => Access::Restricted.max_with(access),
        "unpaid" => Access::Suspended,
        _ => access,
    });
    match plans(subscription, policy, now) {
        Ok((plan, next)) => {
            let wanted = Wanted {
                plan: Some(plan),
                anchor: Some(subscription.billing_cycle_anchor),
                is_paid: subscription.status == "active"
                    && subscription.base_amount.is_some_and(|amount| amount > 0),
                next: Some(next),
                access,
                subscription: Some(Some(subscription.id.clone())),
            };
            (wanted, None)
        }
        Err(error) => (Wanted { access, ..Wanted::default() }, Some(error)),
    }
}

/// The plan of a subscription, and the one that follows: that of the subscription, where that is to change, or the one after it,
/// where it ends.
fn plans(
    subscription: &Subscription,
    policy: &Policy,
    now: Timestamp,
) -> Result<(PlanName, Option<(PlanName, Timestamp)>)> {
    let plan = |name: Option<&str>| -> Result<PlanName> {
        let name = name.ok_or_else(|| {
            Error::Invalid(format!("{}: its metadata names no plan; set `plan` there", subscription.id))
        })?;
        name.parse()
    };
    let current = plan(subscription.plan_at(now))?;
    if let Some(end) = subscription.ends_at() {
        return Ok((current, Some((policy.after.clone(), end))));
    }
    let from = subscription.plan_from.filter(|from| *from > now);
    let next = from.map(|from| Ok((plan(subscription.plan.as_deref())?, from))).transpose();
    next.map(|next: Option<_>| (current, next))
}

impl Access {
    /// The one of the two under which less can be done.
    fn max_with(self, other: Self) -> Self {
        let rank = |access: Self| match access {
            Self::Open => 0,
            Self::Grace => 1,
            Self::Trial => 2,
            Self::Restricted => 3,
            Self::Suspended => 4,
        };
        if rank(other) > rank(self) { other } else { self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400;

    fn at(day: u64) -> Timestamp {
        Timestamp::from_micros(0).plus(Duration::from_secs(day * DAY))
    }

    fn policy() -> Policy {
        Policy {
            after: "default".parse().expect("a name"),
            grace: Duration::from_secs(3 * DAY),
            restricted: Duration::from_secs(11 * DAY),
        }
    }

    fn subscription(id: &str, status: &str) -> Subscription {
        Subscription {
            id: id.to_owned(),
            customer: "cus_1".to_owned(),
            status: status.to_owned(),
            plan: Some("pro".to_owned()),
            plan_before: None,
            plan_from: None,
            billing_cycle_anchor: at(10),
            current_period_start: Some(at(10)),
            current_period_end: Some(at(40)),
            trial_end: None,
            cancel_at: None,
            cancel_at_period_end: false,
            canceled_at: None,
            ended_at: None,
            base_price: None,
            base_item: None,
            base_amount: Some(1900),
            metered_item: None,
            latest_invoice: None,
            created_at: at(10),
        }
    }

    fn decided(all: &[Subscription], followed: Option<&str>, unpaid: Option<u64>, now: u64) -> Wanted {
        let money = Money { followed, unpaid: unpaid.map(at), is_disputed: false };
        let (wanted, trouble) = decide(all, money, &policy(), at(now));
        assert!(trouble.is_none(), "{trouble:?}");
        wanted
    }

    #[test]
    fn an_unpaid_invoice_means_more_the_longer_it_is_unpaid() {
        let all = [subscription("sub_1", "past_due")];
        for (now, access) in [
            (20, Access::Grace),
            (22, Access::Grace),
            (23, Access::Restricted),
            (33, Access::Restricted),
            (34, Access::Suspended),
            (400, Access::Suspended),
        ] {
            assert_eq!(decided(&all, None, Some(20), now).access, Some(access), "day {now}");
        }
        assert_eq!(decided(&all, None, None, 30).access, Some(Access::Open), "paid");
        let unpaid = [subscription("sub_1", "unpaid")];
        assert_eq!(decided(&unpaid, None, None, 30).access, Some(Access::Suspended));
        let trial = [subscription("sub_1", "trialing")];
        assert_eq!(decided(&trial, None, None, 12).access, Some(Access::Trial));
        assert_eq!(decided(&trial, None, Some(1), 40).access, Some(Access::Suspended));
        assert_eq!(decided(&[], None, Some(20), 24).access, Some(Access::Restricted), "without any");
    }

    #[test]
    fn nothing_more_is_owed_while_a_payment_is_disputed() {
        let all = [subscription("sub_1", "active")];
        for (unpaid, access) in
            [(None, Access::Restricted), (Some(20), Access::Restricted), (Some(1), Access::Suspended)]
        {
            let money = Money { followed: None, unpaid: unpaid.map(at), is_disputed: true };
            let (wanted, _) = decide(&all, money, &policy(), at(21));
            assert_eq!(wanted.access, Some(access), "{unpaid:?}");
        }
    }

    #[test]
    fn a_subscription_that_never_began_means_nothing() {
        for status in ["incomplete", "incomplete_expired"] {
            let wanted = decided(&[subscription("sub_1", status)], None, None, 12);
            assert_eq!(wanted, Wanted { access: Some(Access::Open), ..Wanted::default() }, "{status}");
        }
    }

    #[test]
    fn what_is_followed_stays_and_its_end_is_the_end() {
        let two = [subscription("sub_2", "active"), subscription("sub_1", "active")];
        assert_eq!(decided(&two, Some("sub_1"), None, 12).subscription, Some(Some("sub_1".to_owned())));
        assert_eq!(decided(&two, None, None, 12).subscription, Some(Some("sub_2".to_owned())));
        let gone = [subscription("sub_1", "canceled")];
        let wanted = decided(&gone, Some("sub_1"), None, 12);
        assert_eq!(
            (wanted.plan.map(String::from), wanted.subscription),
            (Some("default".to_owned()), Some(None))
        );
        let long_gone = decided(&gone, None, None, 12);
        assert_eq!((long_gone.plan, long_gone.subscription), (None, None), "somebody else decides now");
    }

    #[test]
    fn a_change_waits_for_its_time() {
        let mut changing = subscription("sub_1", "active");
        (changing.plan, changing.plan_before) = (Some("small".to_owned()), Some("pro".to_owned()));
        changing.plan_from = Some(at(40));
        let before = decided(std::slice::from_ref(&changing), None, None, 39);
        assert_eq!(before.plan.map(String::from).as_deref(), Some("pro"));
        assert_eq!(before.next, Some(Some(("small".parse().expect("a name"), at(40)))));
        let after = decided(std::slice::from_ref(&changing), None, None, 40);
        assert_eq!((after.plan.map(String::from).as_deref(), after.next), (Some("small"), Some(None)));
        changing.cancel_at_period_end = true;
        let ending = decided(&[changing], None, None, 39);
        assert_eq!(ending.next, Some(Some(("default".parse().expect("a name"), at(40)))));
    }

    #[test]
    fn what_was_to_end_by_now_has_ended() {
        let mut ending = subscription("sub_1", "active");
        ending.cancel_at_period_end = true;
        let default = || "default".parse().expect("a name");
        for cancel_at in [None, Some(at(25))] {
            ending.cancel_at = cancel_at;
            let end = if cancel_at.is_some() { 25 } else { 40 };
            let before = decided(std::slice::from_ref(&ending), Some("sub_1"), None, end - 1);
            assert_eq!(before.plan.map(String::from).as_deref(), Some("pro"));
            assert_eq!(before.next, Some(Some((default(), at(end)))));
            let after = decided(std::slice::from_ref(&ending), Some("sub_1"), None, end);
            assert_eq!((after.plan, after.next, after.subscription), (Some(default()), Some(None), None));
            let later = decided(std::slice::from_ref(&ending), None, None, end);
            assert_eq!((later.plan, later.subscription), (None, None), "somebody else decides now");
        }
    }

    #[test]
    fn without_a_plan_somebody_has_to_look_and_an_invoice_is_unpaid_all_the_same() {
        let mut odd = subscription("sub_1", "past_due");
        odd.plan = None;
        let money = Money { unpaid: Some(at(10)), ..Money::default() };
        let (wanted, trouble) = decide(&[odd], money, &policy(), at(14));
        assert!(matches!(trouble, Some(Error::Invalid(text)) if text.contains("sub_1")));
        assert_eq!(wanted, Wanted { access: Some(Access::Restricted), ..Wanted::default() });
    }
}
