//! Where a file ends. Pure, and by the records alone: not by segments, which are merged, and not by clocks.
//!
//! A file ends before the batch that is of another day, and before the one that would carry it past its size. The day is that
//! of append. Batches that were stamped by the broker say it; of others the largest timestamp that the partition had up to
//! there stands for it: it never goes back, so a day that is over stays as it is, and producers whose clocks are right are
//! within seconds of it (`message.timestamp.after.max.ms` bounds those whose are not).

use varve_protocol::batch::BatchMeta;

/// What the records of a file take at the most, decompressed; one batch that is larger is a file of its own.
pub const FILE_BYTES_MAX: u64 = 128 << 20;

const DAY_MS: i64 = 86_400_000;

/// A day since 1970, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Day(pub i64);

impl Day {
    /// The day of a date.
    #[must_use]
    pub fn of(date: &str) -> Option<Self> {
        let mut parts = date.splitn(3, '-').map(|part| part.parse::<i64>().ok());
        let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
        let shifted_year = if month <= 2 { year - 1 } else { year };
        let (era, year_of_era) = (shifted_year.div_euclid(400), shifted_year.rem_euclid(400));
        let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
        let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
        let found = Self(era * 146_097 + day_of_era - 719_468);
        (found.date() == date).then_some(found)
    }

    /// The day of a time.
    #[must_use]
    pub const fn at(ms: i64) -> Self {
        Self(if ms > 0 { ms / DAY_MS } else { 0 })
    }

    /// `yyyy-mm-dd`, by the civil-from-days algorithm of Howard Hinnant.
    #[must_use]
    pub fn date(self) -> String {
        let days = self.0 + 719_468;
        let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * shifted + 2) / 5 + 1;
        let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        format!("{year:04}-{month:02}-{day:02}")
    }
}

/// Follows the batches of a partition.
#[derive(Clone, Copy, Debug)]
pub struct Cutter {
    newest_ms: i64,
    bytes_max: u64,
    /// Of the file that is open: its day and the bytes of its records.
    open: Option<(Day, u64)>,
}

impl Cutter {
    /// Begins where the largest timestamp so far is `newest_ms`.
    #[must_use]
    pub const fn new(newest_ms: i64, bytes_max: u64) -> Self {
        Self { newest_ms, bytes_max, open: None }
    }

    /// Passes over a batch that is in no file.
    pub const fn pass(&mut self, meta: &BatchMeta) {
        if meta.max_timestamp > self.newest_ms {
            self.newest_ms = meta.max_timestamp;
        }
    }

    /// The largest timestamp so far.
    #[must_use]
    pub const fn newest_ms(&self) -> i64 {
        self.newest_ms
    }

    /// Takes the next batch, whose records have so many bytes; says of which day it is and whether a file begins with it.
    pub fn take(&mut self, meta: &BatchMeta, bytes: u64) -> (Day, bool) {
        self.pass(meta);
        let day = Day::at(self.newest_ms);
        match &mut self.open {
            Some((open, held)) if *open == day && *held + bytes <= self.bytes_max => {
                *held += bytes;
                (day, false)
            }
            open => {
                *open = Some((day, bytes));
                (day, true)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use varve_protocol::batch::{BatchBuilder, BatchHeader, Codec};

    use super::*;

    fn at(ms: i64) -> BatchMeta {
        let mut builder = BatchBuilder::new(Codec::None);
        builder.push(ms, None, None);
        *BatchHeader::read(&builder.build()).unwrap().meta()
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (day, date) in
            [(0, "1970-01-01"), (19_675, "2023-11-14"), (19_782, "2024-02-29"), (47_540, "2100-02-28")]
        {
            assert_eq!(Day(day).date(), date);
        }
        assert!((0..50_000).map(Day).all(|day| Day::of(&day.date()) == Some(day)));
        for wrong in ["2023-02-29", "2023-1-01", "", "2023-11", "x-1-1"] {
            assert_eq!(Day::of(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_file_ends_with_its_day_and_with_its_size_and_days_never_go_back() {
        let mut cutter = Cutter::new(-1, 100);
        let mut take = |ms: i64, bytes: u64| {
            let (day, begins) = cutter.take(&at(ms), bytes);
            (day.0, begins)
        };
        assert_eq!(take(5, 60), (0, true));
        assert_eq!(take(6, 40), (0, false));
        assert_eq!(take(7, 1), (0, true));
        assert_eq!(take(DAY_MS, 1), (1, true));
        // A late record is of the day on which it came.
        assert_eq!(take(8, 1), (1, false));
        assert_eq!(take(8, 1_000), (1, true));
        assert_eq!(take(8, 1), (1, true));
    }
}
