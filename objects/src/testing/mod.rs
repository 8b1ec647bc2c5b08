//! Stores, clocks and chance for tests and the simulator: deterministic, and not for data.

mod disk;
mod faulty;
mod memory;
mod time;

pub use disk::PlainDisk;
pub use faulty::{Fault, FaultRates, FaultyStore};
pub use memory::MemoryStore;
pub use time::{InstantClock, SeededEntropy};
