//! The letter of the specification, revision by revision, where no other story tells it.

mod descriptors;
mod press;
mod structured;
