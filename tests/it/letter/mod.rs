//! The letter of the specification, revision by revision, where no other story tells it.

mod codes;
mod completion;
mod descriptors;
mod handshake;
mod press;
mod stateless;
mod structured;

/// The revisions with a handshake.
const LEGACY: [&str; 4] = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"];
