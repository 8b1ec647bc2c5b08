//! The seeded simulator.

pub mod clock;
pub mod executor;
