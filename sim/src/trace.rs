//! Everything that happened, as one number: the same seed must give it twice.

use std::fmt::{Arguments, Write};

/// A running FNV-1a hash over lines of text, which are kept only on demand.
#[derive(Default)]
pub struct Trace {
    hash: u64,
    events: u64,
    lines: Option<Vec<String>>,
    buffer: String,
}

impl Trace {
    /// A trace that also keeps its lines.
    #[must_use]
    pub fn verbose() -> Self {
        Self { lines: Some(Vec::new()), ..Self::default() }
    }

    /// Notes an event.
    pub fn note(&mut self, line: Arguments<'_>) {
        self.buffer.clear();
        // Writing to a string does not fail.
        let _ = self.buffer.write_fmt(line);
        self.events += 1;
        if self.hash == 0 {
            self.hash = 0xcbf2_9ce4_8422_2325;
        }
        for byte in self.buffer.bytes().chain([b'\n']) {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{:>6} {}", self.events, self.buffer));
        }
    }

    /// How many events were noted: a point in time for the checkers.
    #[must_use]
    pub const fn events(&self) -> u64 {
        self.events
    }

    /// The hash of all events so far.
    #[must_use]
    pub const fn hash(&self) -> u64 {
        self.hash
    }

    /// The lines, where they are kept.
    #[must_use]
    pub fn lines(&self) -> &[String] {
        self.lines.as_deref().unwrap_or_default()
    }
}
