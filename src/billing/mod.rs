//! Billing: the ledger becomes invoices.

pub mod export;
