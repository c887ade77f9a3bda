//! Charges that are taken back, because nobody got what was charged. Kept until the database has them.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::meter::Meter;
use super::purse::Part;
use crate::clock::Timestamp;
use crate::db;
use crate::db::idempotency::KeyName;
use crate::db::settlements::{self, GiveBack, SettledCall};
use crate::error::{Error, Result};
use crate::ledger::{days, rollups};

/// Charges that wait to be taken back. More would mean that the database is away while everything is settled.
const MOST: usize = 8192;

/// Charges to take back.
#[derive(Default)]
pub(super) struct GiveBacks {
    waiting: Mutex<Vec<GiveBack>>,
}

impl GiveBacks {
    /// Takes a call's charge back as soon as that can be.
    pub fn add(&self, call: &SettledCall, parts: &[Part]) {
        let Some(period) = call.made.period_id.filter(|_| !parts.is_empty()) else { return };
        let key = call.idempotency_key.as_ref().map(|hash| KeyName {
            tenant: call.made.tenant_id,
            credential: call.made.credential.clone(),
            hash: hash.clone(),
        });
        let draws = parts.iter().map(|part| (part.slab, part.credits)).collect();
        let back = GiveBack {
            tenant: call.made.tenant_id,
            period,
            call: call.made.id,
            started_at: call.made.started_at,
            key,
            draws,
        };
        let mut waiting = self.waiting();
        if waiting.len() < MOST {
            waiting.push(back);
        } else {
            tracing::error!(call = %back.call, "a call was charged whose result was not released, and this cannot be noted");
        }
    }

    /// Takes back what waits. Each waits until it is done, so that nothing is forgotten where this is dropped.
    pub async fn settle(&self, meter: &Meter) -> Result<()> {
        loop {
            let next = self.waiting().last().cloned();
            let Some(next) = next else { return Ok(()) };
            let taken = take_back(meter, &next).await;
            let mut waiting = self.waiting();
            if let Some(place) = waiting.iter().position(|other| other.call == next.call)
                && !matches!(taken, Err(Error::Away(_)))
            {
                waiting.remove(place);
                if taken.is_err() {
                    // Others first.
                    waiting.insert(0, next.clone());
                }
            }
            drop(waiting);
            taken.inspect_err(|error| {
                if !matches!(error, Error::Away(_)) {
                    tracing::error!(%error, call = %next.call, "a charge could not be taken back; trying again");
                }
            })?;
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<GiveBack>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn take_back(meter: &Meter, what: &GiveBack) -> Result<()> {
    let now = meter.clock.now();
    let mut tx = meter.db.begin().await?;
    db::slabs::lock_account(&mut tx, what.tenant, now).await?;
    settlements::give_back(&mut tx, what, now).await?;
    rollups::mark_stale(&mut tx, days::day_of(Timestamp::from_micros(what.started_at))).await?;
    tx.commit().await
}
