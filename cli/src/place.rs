//! `-o`: where a consumer starts and stops.
//!
//! ```text
//! start   end   47   +2 (after the start)   -3 (before the end)   each with :end or :52 to stop before
//! @1700000000000  @1700000000  @2023-11-14  @2023-11-14T22:13:20Z  @-1h (ago)   and @from:to
//! ```

use varve_broker::config::value;

/// A point in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// The first record that is kept.
    Start,
    /// Behind the last record.
    End,
    /// This offset.
    At(i64),
    /// So many records behind the start.
    AfterStart(i64),
    /// So many records before the end.
    BeforeEnd(i64),
    /// The first record at or after this time, in milliseconds.
    Time(i64),
}

/// From where, and to where if not without end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    pub from: Point,
    pub to: Option<Point>,
}

/// Parses `-o`; times that are relative are before `now_ms`.
pub fn parse(text: &str, now_ms: i64) -> Result<Range, String> {
    let wrong = || format!("{text:?}: expected start, end, an offset, +n, -n, or @time, and :to behind it");
    match text.strip_prefix('@') {
        Some(times) => parse_times(times, now_ms).ok_or_else(wrong),
        None => {
            let (from, to) = text.split_once(':').map_or((text, None), |(from, to)| (from, Some(to)));
            let from = if from.is_empty() { Some(Point::Start) } else { point(from) };
            let to = match to {
                None | Some("") => None,
                Some(to) => Some(point(to).ok_or_else(wrong)?),
            };
            Ok(Range { from: from.ok_or_else(wrong)?, to })
        }
    }
}

fn point(text: &str) -> Option<Point> {
    let number = |text: &str| text.parse::<i64>().ok().filter(|n| *n >= 0);
    match text {
        "start" | "beginning" | "earliest" | "oldest" => Some(Point::Start),
        "end" | "latest" | "newest" => Some(Point::End),
        _ => match (text.strip_prefix('+'), text.strip_prefix('-')) {
            (Some(count), _) => number(count).map(Point::AfterStart),
            (_, Some(count)) => number(count).map(Point::BeforeEnd),
            _ => number(text).map(Point::At),
        },
    }
}

/// Times hold colons too: the text is one time, or two around one of its colons.
fn parse_times(text: &str, now_ms: i64) -> Option<Range> {
    if let Some(ms) = time(text, now_ms) {
        return Some(Range { from: Point::Time(ms), to: None });
    }
    text.match_indices(':').find_map(|(colon, _)| {
        let from = time(&text[..colon], now_ms)?;
        let to = match &text[colon + 1..] {
            "end" => Point::End,
            to => Point::Time(time(to.strip_prefix('@').unwrap_or(to), now_ms)?),
        };
        Some(Range { from: Point::Time(from), to: Some(to) })
    })
}

/// Milliseconds (12 digits and more), seconds, a UTC date, a UTC time, or a span ago.
fn time(text: &str, now_ms: i64) -> Option<i64> {
    if let Some(ago) = text.strip_prefix('-') {
        return value::millis(ago).filter(|ms| *ms >= 0).map(|ms| now_ms - ms);
    }
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        let number: i64 = text.parse().ok()?;
        return if text.len() >= 12 { Some(number) } else { number.checked_mul(1000) };
    }
    let (date, clock) = text.split_once(['T', ' ']).map_or((text, None), |(date, clock)| (date, Some(clock)));
    let midnight = date_ms(date)?;
    clock.map_or(Some(0), clock_ms).map(|ms| midnight + ms)
}

fn digits(text: &str, length: usize) -> Option<i64> {
    let sound = text.len() == length && text.bytes().all(|byte| byte.is_ascii_digit());
    sound.then(|| text.parse().ok()).flatten()
}

/// `2023-11-14`, by the days-from-civil algorithm of Howard Hinnant.
fn date_ms(text: &str) -> Option<i64> {
    let mut fields = text.split('-');
    let year = digits(fields.next()?, 4)?;
    let (month, day) = (digits(fields.next()?, 2)?, digits(fields.next()?, 2)?);
    if fields.next().is_some() || !(1..=12).contains(&month) || !(1..=days_in(year, month)).contains(&day) {
        return None;
    }
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    Some((era * 146_097 + day_of_era - 719_468) * 86_400_000)
}

const fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// `22:13`, `22:13:20`, `22:13:20.5`, each with or without `Z`.
fn clock_ms(text: &str) -> Option<i64> {
    let text = text.strip_suffix('Z').unwrap_or(text);
    let (clock, fraction) = text.split_once('.').unwrap_or((text, ""));
    let mut fields = clock.split(':');
    let (hours, minutes) = (digits(fields.next()?, 2)?, digits(fields.next()?, 2)?);
    let seconds = fields.next().map_or(Some(0), |text| digits(text, 2))?;
    if fields.next().is_some() || hours > 23 || minutes > 59 || seconds > 59 {
        return None;
    }
    let millis = match fraction {
        "" => 0,
        text if text.len() <= 9 => digits(&format!("{text:0<3}")[..3], 3)?,
        _ => return None,
    };
    Some(((hours * 60 + minutes) * 60 + seconds) * 1000 + millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_700_000_000_000;

    fn from(text: &str) -> Option<Point> {
        let range = parse(text, NOW).ok()?;
        range.to.is_none().then_some(range.from)
    }

    #[test]
    fn every_spelling_of_a_place() {
        assert_eq!(from("start"), Some(Point::Start));
        assert_eq!(from("earliest"), Some(Point::Start));
        assert_eq!(from("end"), Some(Point::End));
        assert_eq!(from("47"), Some(Point::At(47)));
        assert_eq!(from("+2"), Some(Point::AfterStart(2)));
        assert_eq!(from("-3"), Some(Point::BeforeEnd(3)));
        for wrong in ["", "@", "--3", "+-2", "soon", "47:x", "@yesterday"] {
            assert_eq!(from(wrong).filter(|_| !wrong.is_empty()), None, "{wrong}");
        }
    }

    #[test]
    fn every_spelling_of_a_time() {
        let at = |text: &str| match from(text) {
            Some(Point::Time(ms)) => ms,
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(at("@1700000000123"), 1_700_000_000_123);
        assert_eq!(at("@1700000000"), NOW);
        assert_eq!(at("@2023-11-14"), 1_699_920_000_000);
        assert_eq!(at("@2023-11-14T22:13:20Z"), NOW);
        assert_eq!(at("@2023-11-14T22:13:20.5"), NOW + 500);
        assert_eq!(at("@2024-02-29"), 1_709_164_800_000);
        assert_eq!(at("@1970-01-01"), 0);
        assert_eq!(at("@-1h"), NOW - 3_600_000);
        assert!(parse("@2023-02-29", NOW).is_err());
    }

    #[test]
    fn ranges() {
        let range = |from, to| Ok(Range { from, to: Some(to) });
        assert_eq!(parse("start:end", NOW), range(Point::Start, Point::End));
        assert_eq!(parse(":end", NOW), range(Point::Start, Point::End));
        assert_eq!(parse("10:20", NOW), range(Point::At(10), Point::At(20)));
        assert_eq!(parse("@1700000000:1700000060", NOW), range(Point::Time(NOW), Point::Time(NOW + 60_000)));
        assert_eq!(parse("@2023-11-14T22:13:20:end", NOW), range(Point::Time(NOW), Point::End));
        assert_eq!(
            parse("@2023-11-14T22:13:20Z:2023-11-14T22:14:20Z", NOW),
            range(Point::Time(NOW), Point::Time(NOW + 60_000))
        );
    }
}
