//! What happens to bytes on their way.

use std::{fmt, time::Duration};

/// The weather of one direction; fine by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weather {
    /// Nothing arrives, not even that a connection ended.
    pub is_cut: bool,
    /// Everything comes so much later.
    pub delay_ms: u64,
    /// And up to so much later still, in order.
    pub jitter_ms: u64,
    /// Pieces, of a hundred, that are sent again after TCP's time-out, which doubles; what is behind them waits.
    pub loss_percent: u64,
    /// The line's width.
    pub bytes_per_second: Option<u64>,
    /// Frames, of a thousand, in which a bit is other.
    pub corrupt_permille: u64,
    /// Frames, of a thousand, that come after later ones.
    pub swap_permille: u64,
    /// Frames, of a thousand, that come twice.
    pub repeat_permille: u64,
}

/// TCP's first time-out before it sends again.
const RESEND: Duration = Duration::from_millis(200);
/// It doubles so often at the most.
const RESENDS_MAX: u32 = 5;

impl Weather {
    /// Fine.
    pub const FINE: Self = Self {
        is_cut: false,
        delay_ms: 0,
        jitter_ms: 0,
        loss_percent: 0,
        bytes_per_second: None,
        corrupt_permille: 0,
        swap_permille: 0,
        repeat_permille: 0,
    };
    /// Nothing arrives.
    pub const CUT: Self = Self { is_cut: true, ..Self::FINE };
    /// A thin line: one megabit a second.
    pub const THIN: Self = Self { bytes_per_second: Some(125_000), ..Self::FINE };

    /// Later by `delay_ms`, give or take half.
    #[must_use]
    pub const fn late(delay_ms: u64) -> Self {
        Self { delay_ms: delay_ms / 2, jitter_ms: delay_ms, ..Self::FINE }
    }

    /// So many pieces of a hundred are lost, and sent again.
    #[must_use]
    pub const fn lossy(loss_percent: u64) -> Self {
        Self { loss_percent, ..Self::FINE }
    }

    /// How much later a piece comes that was lost so often.
    pub(super) fn resent(times: u32) -> Duration {
        RESEND * ((1 << times.min(RESENDS_MAX)) - 1)
    }
}

impl fmt::Display for Weather {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = Vec::new();
        if self.is_cut {
            said.push("cut".to_owned());
        }
        if self.delay_ms + self.jitter_ms > 0 {
            said.push(format!("{}..{} ms late", self.delay_ms, self.delay_ms + self.jitter_ms));
        }
        if let Some(bytes) = self.bytes_per_second {
            said.push(format!("{bytes} B/s"));
        }
        let shares = [
            (self.loss_percent, "% lost"),
            (self.corrupt_permille, "permille corrupted"),
            (self.swap_permille, "permille swapped"),
            (self.repeat_permille, "permille repeated"),
        ];
        said.extend(
            shares.iter().filter(|(share, _)| *share > 0).map(|(share, what)| format!("{share} {what}")),
        );
        if said.is_empty() { f.write_str("fine") } else { f.write_str(&said.join(", ")) }
    }
}
