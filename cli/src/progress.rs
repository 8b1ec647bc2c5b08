//! A bar on a terminal, nothing where standard error is none.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use varve_compactor::verify;

/// Bytes that are done, of those that are known of.
pub struct Bytes(ProgressBar);

impl Bytes {
    /// A bar under this word; hidden where nobody looks.
    pub fn new(word: &'static str) -> Self {
        let bar = ProgressBar::new(0);
        let style = "{msg} [{bar:30}] {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left";
        bar.set_style(ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_message(word);
        bar.enable_steady_tick(Duration::from_millis(500));
        Self(bar)
    }

    pub fn expect(&self, bytes: u64) {
        self.0.inc_length(bytes);
    }

    pub fn done(&self, bytes: u64) {
        self.0.inc(bytes);
    }

    /// Takes the bar away.
    pub fn clear(&self) {
        self.0.finish_and_clear();
    }
}

impl verify::Progress for Bytes {
    fn expect(&self, bytes: u64) {
        Self::expect(self, bytes);
    }

    fn read(&self, bytes: u64) {
        self.done(bytes);
    }
}
