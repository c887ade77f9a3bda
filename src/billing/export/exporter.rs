//! Rounds of the export: finds what is to be told, and goes on with what is under way, one request at a time per customer.

use std::time::Duration;

use super::minutes::{MINUTE, newest, newest_free};
use super::slot::{Alarm, MARGIN, OLDEST, Reading, Step};
use super::{Answer, Event, Export, ExportState, Meter};
use crate::accounts;
use crate::clock::{Clock, Timestamp};
use crate::credits::Credits;
use crate::db::exports::{Missing, SLOTS};
use crate::db::{self, Db, Tx};
use crate::error::{Error, Result, bearable};
use crate::id::{ExportId, TenantId};

/// Tenants, and exports of one, that are asked for at once.
const BATCH: i64 = 200;
/// How long a tenant is claimed: longer than any request to the provider may take.
const CLAIM: Duration = Duration::from_secs(300);
/// How long after its end a period may still owe something else than was told, and is compared.
pub(crate) const SINCE: Duration = Duration::from_secs(62 * 24 * 3600);
/// How often an event is sent to the account of our own while proof is missing, and how old what lacks it must be.
const CANARY: Duration = Duration::from_secs(3600);
/// The most that one event tells, either way: the provider takes 15 digits
/// (<https://docs.stripe.com/changelog/dahlia/2026-04-22/billing-meter-event-values-validation>). The rest gets another one.
const MOST: i64 = 999_999_999_999_999;
/// Canaries that are looked for in one round.
const CANARIES: i64 = 8;

/// What the exporter goes by.
#[derive(Debug, Clone)]
pub struct Rules {
    /// How long after a period's end its invoice becomes final.
    pub grace: Duration,
    /// The provider's id of an account of our own, that nobody is billed for.
    pub canary: String,
    /// In whose name tenants are claimed: a process has one of its own.
    pub holder: String,
}

/// What a round did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Round {
    /// Exports that were begun.
    pub begun: usize,
    /// Events that were sent.
    pub sent: usize,
    /// Exports that were proven.
    pub verified: usize,
    /// Slots that count something else than was told.
    pub drifted: usize,
    /// Events that the provider does not take.
    pub refused: usize,
}

/// Tells the provider what is owed.
pub struct Exporter<M> {
    pub(super) db: Db,
    pub(super) clock: Clock,
    pub(super) meter: M,
    rules: Rules,
}

impl<M: Meter> Exporter<M> {
    /// One that has nothing claimed.
    pub fn new(db: Db, clock: Clock, meter: M, rules: Rules) -> Self {
        Self { db, clock, meter, rules }
    }

    /// One round over everything that is due. What fails for one tenant is logged, and keeps no other waiting.
    ///
    /// # Errors
    /// [`Error::Database`], [`Error::Away`].
    pub async fn round(&self) -> Result<Round> {
        let mut round = Round::default();
        self.canary().await?;
        let mut after = None;
        loop {
            let now = self.clock.now();
            let due = db::exports::due(&self.db, (now.minus(SINCE), now), after, BATCH).await?;
            let Some(last) = due.last() else { return Ok(round) };
            after = Some(*last);
            for tenant in due {
                let done = self.tenant(tenant, &mut round).await;
                bearable(done, tenant, "what it owes cannot be exported")?;
            }
        }
    }

    /// Everything that is due for one tenant, unless another process is at it.
    async fn tenant(&self, tenant: TenantId, round: &mut Round) -> Result<()> {
        if self.claim(tenant).await?.is_none() {
            return Ok(());
        }
        // Whoever uses nothing owes what is late in the month that runs all the same.
        let opened = accounts::standing(&self.db, tenant, self.clock.now()).await;
        bearable(opened, tenant, "its running month cannot be opened")?;
        round.begun += self.begin(tenant).await?;
        for export in db::exports::of_tenant(&self.db, tenant, self.clock.now(), BATCH).await? {
            // Also where much is to be done, the claim holds.
            let Some(customer) = self.claim(tenant).await? else { return Ok(()) };
            self.go_on(export, &customer, round).await?;
        }
        db::exports::release(&self.db, tenant, &self.rules.holder).await
    }

    async fn claim(&self, tenant: TenantId) -> Result<Option<String>> {
        let now = self.clock.now();
        db::exports::claim(&self.db, tenant, &self.rules.holder, (now, now.plus(CLAIM))).await
    }

    /// Begins an export for each period that owes something else than was told. How many.
    async fn begin(&self, tenant: TenantId) -> Result<usize> {
        let now = self.clock.now();
        let mut tx = self.db.begin().await?;
        if db::accounts::lock(&mut tx, tenant, now).await?.is_none() {
            return Ok(0);
        }
        let mut begun = 0;
        for missing in db::exports::missing(&mut tx, tenant, now.minus(SINCE)).await? {
            let Some(slot) = self.slot(&mut tx, tenant, &missing, now).await? else { continue };
            let export = Export {
                id: ExportId::new(),
                tenant_id: tenant,
                period_id: missing.id,
                slot,
                credits: Credits::from_micros(missing.missing.micros().clamp(-MOST, MOST)),
                generation: 1,
                state: ExportState::Open,
                first_sent_at: None,
                last_sent_at: None,
                counted: None,
                due_at: now,
                tries: 0,
                note: String::new(),
                revision: 0,
                slot_ends_at: None,
            };
            db::exports::insert(&mut tx, &export, now).await?;
            begun += 1;
        }
        tx.commit().await?;
        Ok(begun)
    }

    /// While the period runs, its newest full minute; after its end any of its minutes, as long as events in it reach its
    /// invoice; or else the newest of the period that is now. Nothing, where that is taken: another one is over soon.
    async fn slot(
        &self,
        tx: &mut Tx,
        tenant: TenantId,
        missing: &Missing,
        now: Timestamp,
    ) -> Result<Option<Timestamp>> {
        let free = async |tx: &mut Tx, from: Timestamp, to: Timestamp| {
            let used = db::exports::slots(tx, tenant, to).await?;
            // What is older than all of these is not known to be free.
            let known =
                used.get(SLOTS - 1).map_or(from, |last| from.max(last.plus(Duration::from_micros(1))));
            Ok::<_, Error>(newest_free(known, to, &used))
        };
        if now < missing.ends_at {
            return free(tx, missing.starts_at.max(newest(now)), now).await;
        }
        if now.plus(MARGIN) < missing.ends_at.plus(self.rules.grace)
            && let Some(slot) = free(tx, missing.starts_at.max(now.minus(OLDEST)), missing.ends_at).await?
        {
            return Ok(Some(slot));
        }
        let later = db::periods::ending_after(tx, tenant, now).await?;
        let Some(current) = later.iter().find(|period| period.starts_at <= now) else { return Ok(None) };
        free(tx, current.starts_at.max(newest(now)), now).await
    }

    /// Goes on with one export.
    async fn go_on(&self, mut export: Export, customer: &str, round: &mut Round) -> Result<()> {
        let now = self.clock.now();
        let takes_events = export.takes_events(now, self.rules.grace);
        let alarm = match export.step(now, takes_events) {
            Step::Nothing => return Ok(()),
            Step::GiveUp => {
                export.give_up();
                None
            }
            Step::Send { again } => {
                export.sending(now);
                if !db::exports::update(&self.db, &mut export).await? {
                    return Ok(());
                }
                round.sent += 1;
                let answer = self.meter.send(&export.event(customer)).await;
                export.sent(answer, again, self.clock.now())
            }
            Step::Read => {
                let span = (export.slot, Timestamp::from_micros(export.slot.as_micros() + MINUTE));
                match self.meter.counted(customer, span).await {
                    Ok(counted) => {
                        let canary = db::exports::newest_seen_canary(&self.db).await?;
                        export.read(Reading { counted, canary, takes_events }, self.clock.now())
                    }
                    Err(why) => {
                        export.unread(&why, self.clock.now());
                        None
                    }
                }
            }
        };
        db::exports::update(&self.db, &mut export).await?;
        round.verified += usize::from(export.state == ExportState::Verified);
        self.report(&export, alarm, round);
        Ok(())
    }

    fn report(&self, export: &Export, alarm: Option<Alarm>, round: &mut Round) {
        let Export { id, tenant_id: tenant, slot, credits, counted, note, .. } = export;
        match alarm {
            Some(Alarm::Drift) => {
                round.drifted += 1;
                tracing::error!(export = %id, %tenant, %slot, %credits, ?counted, "drift: the provider counts something else than it was told");
            }
            Some(Alarm::Refused) => {
                round.refused += 1;
                tracing::error!(export = %id, %tenant, why = %note, "the provider does not take an event");
            }
            None => {}
        }
    }

    /// While proof is missing that something was lost, an event is sent to our own account every now and then, and looked for.
    async fn canary(&self) -> Result<()> {
        let now = self.clock.now();
        if !db::exports::is_proof_missing(&self.db, now.minus(CANARY)).await? {
            return Ok(());
        }
        for slot in db::exports::waiting_canaries(&self.db, CANARIES).await? {
            let span = (slot, Timestamp::from_micros(slot.as_micros() + MINUTE));
            if self.meter.counted(&self.rules.canary, span).await.is_ok_and(Credits::is_positive) {
                db::exports::canary_seen(&self.db, slot, self.clock.now()).await?;
            }
        }
        let newest = db::exports::newest_canary(&self.db).await?;
        let Some(slot) = newest_free(now.minus(CANARY), now, &[]) else { return Ok(()) };
        let is_time = newest.is_none_or(|newest| now >= newest.plus(CANARY));
        if !is_time || !db::exports::insert_canary(&self.db, slot).await? {
            return Ok(());
        }
        let event = Event {
            identifier: format!("weir_canary_{}", slot.as_seconds()),
            customer: self.rules.canary.clone(),
            at: slot,
            credits: Credits::from_micros(1),
        };
        // When it was sent, not when it was answered: what was sent in between is not proven by it.
        if self.meter.send(&event).await == Answer::Accepted {
            db::exports::canary_accepted(&self.db, slot, now).await?;
        }
        Ok(())
    }
}
