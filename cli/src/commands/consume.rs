//! `consume`.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    thread,
    time::Instant,
};

use varve_broker::config::Sources;

use crate::{
    args::{Consume, ReadFlags},
    client::{Client, ClientError, Missing, Topic, offsets::Place},
    failure::Failure,
    limits,
    pattern::Pattern,
    place::{self, Point, Range},
    record::Record,
};

/// How a record is printed where nobody says.
const FORMAT_DEFAULT: &str = "%v\\n";
/// What `-o` and `-f` call one object per line.
const JSON: &str = "json";

/// How a record is printed.
#[derive(Debug)]
pub enum Printed {
    Pattern(Pattern),
    Json,
}

impl Printed {
    pub fn parse(flags: &ReadFlags) -> Result<Self, Failure> {
        let format = flags.format.as_deref();
        if flags.json || flags.offsets.iter().any(|offset| offset == JSON) {
            return match format {
                None | Some(JSON) => Ok(Self::Json),
                Some(other) => Err(Failure::usage(format!("-f {other:?} and json: which of both?"))),
            };
        }
        let format = format.unwrap_or(FORMAT_DEFAULT);
        if format == JSON {
            return Ok(Self::Json);
        }
        let pattern = Pattern::parse(format);
        pattern.map(Self::Pattern).map_err(|why| Failure::usage(format!("-f {format:?}: {why}")))
    }

    pub fn write(&self, record: &Record, out: &mut Vec<u8>) {
        match self {
            Self::Pattern(pattern) => pattern.write(record, out),
            Self::Json => {
                out.extend_from_slice(record.to_json().to_string().as_bytes());
                out.push(b'\n');
            }
        }
    }
}

/// Where to read: what `-o` says beside how to print.
pub fn range(flags: &ReadFlags, now_ms: i64) -> Result<Range, Failure> {
    let mut said = flags.offsets.iter().map(String::as_str).filter(|offset| *offset != JSON);
    let offset = match (said.next(), flags.from_beginning) {
        (None, _) => "start",
        (Some(_), true) => return Err(Failure::usage("--from-beginning and -o: which of both?")),
        (Some(offset), false) => offset,
    };
    if let Some(second) = said.next() {
        return Err(Failure::usage(format!("-o {offset:?} and {second:?}: which of both?")));
    }
    place::parse(offset, now_ms).map_err(|why| Failure::usage(format!("-o {why}")))
}

pub fn run(flags: &Consume, sources: &Sources) -> Result<(), Failure> {
    let printed = Printed::parse(&flags.reading)?;
    let range = range(&flags.reading, super::now_ms())?;
    let mut client = super::client(&flags.brokers, sources);
    let topic = client.topic(&flags.topic, Missing::Report)?;
    let stop = if flags.exit { Stop::AtEnd } else { Stop::Never };
    let plan = Plan::resolve(&mut client, &topic, flags.reading.partitions.named(), range, stop)?;
    let left = flags.reading.count.unwrap_or(u64::MAX);
    Reader { client, topic, plan, printed, left }.run()
}

/// When reading ends, beside `-n` and the end of `-o`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// At what is the end now.
    AtEnd,
    /// Not by itself.
    Never,
}

/// Per partition the next offset to read, and where to stop.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub positions: BTreeMap<i32, i64>,
    pub ends: BTreeMap<i32, i64>,
}

impl Plan {
    /// Turns points into offsets.
    pub fn resolve(
        client: &mut Client,
        topic: &Topic,
        chosen: &[i32],
        range: Range,
        stop: Stop,
    ) -> Result<Self, ClientError> {
        let positions = resolve(client, topic, chosen, range.from)?;
        let mut ends = match range.to {
            Some(to) => resolve(client, topic, chosen, to)?,
            None => BTreeMap::new(),
        };
        if stop == Stop::AtEnd {
            for (partition, end) in client.offsets(topic, chosen, Place::Latest)? {
                let end = ends.get(&partition).map_or(end, |asked| end.min(*asked));
                ends.insert(partition, end);
            }
        }
        let mut plan = Self { positions, ends };
        plan.drop_finished();
        Ok(plan)
    }

    fn is_before_end(&self, record: &Record) -> bool {
        self.ends.get(&record.partition).is_none_or(|end| record.offset < *end)
    }

    fn drop_finished(&mut self) {
        let ends = &self.ends;
        self.positions.retain(|partition, next| ends.get(partition).is_none_or(|end| *next < *end));
    }
}

/// Turns a point into an offset of each partition.
pub fn resolve(
    client: &mut Client,
    topic: &Topic,
    chosen: &[i32],
    point: Point,
) -> Result<BTreeMap<i32, i64>, ClientError> {
    let start = client.offsets(topic, chosen, Place::Earliest)?;
    if point == Point::Start {
        return Ok(start);
    }
    let end = client.offsets(topic, chosen, Place::Latest)?;
    let at_time = match point {
        Point::Time(ms) => client.offsets(topic, chosen, Place::Time(ms))?,
        _ => BTreeMap::new(),
    };
    let offset = |partition: i32, start: i64| {
        let end = end.get(&partition).copied().unwrap_or(start);
        match point {
            Point::Start => start,
            Point::End => end,
            Point::At(offset) => offset,
            Point::AfterStart(count) => start.saturating_add(count).min(end),
            Point::BeforeEnd(count) => end.saturating_sub(count).max(start),
            Point::Time(_) => at_time.get(&partition).copied().filter(|offset| *offset >= 0).unwrap_or(end),
        }
    };
    Ok(start.iter().map(|(&partition, &start)| (partition, offset(partition, start))).collect())
}

struct Reader {
    client: Client,
    topic: Topic,
    plan: Plan,
    printed: Printed,
    left: u64,
}

impl Reader {
    fn run(mut self) -> Result<(), Failure> {
        let mut trouble_since = None;
        while self.left > 0 && !self.plan.positions.is_empty() {
            match self.client.fetch(&self.topic, &self.plan.positions) {
                Ok(fetched) => {
                    trouble_since = None;
                    for partition in fetched {
                        self.print(&partition.records)?;
                        self.plan.positions.insert(partition.partition, partition.next);
                        if self.left == 0 {
                            break;
                        }
                    }
                    self.plan.drop_finished();
                }
                Err(error) => {
                    let since = *trouble_since.get_or_insert_with(Instant::now);
                    if !error.is_retriable() || since.elapsed() > limits::FETCH_RETRY_MAX {
                        return Err(error.into());
                    }
                    self.recover()?;
                }
            }
        }
        Ok(())
    }

    /// Leaders move and brokers restart: looks for the leaders again.
    fn recover(&mut self) -> Result<(), Failure> {
        thread::sleep(limits::RETRY_BACKOFF);
        match self.client.topic(&self.topic.name, Missing::Report) {
            Ok(topic) => self.topic = topic,
            Err(error) if error.is_retriable() => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn print(&mut self, records: &[Record]) -> Result<(), Failure> {
        let mut out = Vec::new();
        for record in records.iter().filter(|record| self.plan.is_before_end(record)) {
            if self.left == 0 {
                break;
            }
            self.printed.write(record, &mut out);
            self.left -= 1;
        }
        if out.is_empty() {
            return Ok(());
        }
        let mut stdout = io::stdout().lock();
        stdout.write_all(&out)?;
        Ok(stdout.flush()?)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Cli, Command};

    fn flags(line: &str) -> ReadFlags {
        let cli = Cli::try_parse_from(format!("varve consume t {line}").split_whitespace()).unwrap();
        let Some(Command::Consume(flags)) = cli.command else { panic!("consume") };
        flags.reading
    }

    #[test]
    fn json_is_asked_for_as_everywhere_and_beside_a_start() {
        for (line, from) in [
            ("-o json", Point::Start),
            ("--json", Point::Start),
            ("-f json -o 7", Point::At(7)),
            ("-o json -o 7", Point::At(7)),
            ("-o 7 -o json -f json", Point::At(7)),
            ("--from-beginning -o json", Point::Start),
        ] {
            let flags = flags(line);
            assert!(matches!(Printed::parse(&flags), Ok(Printed::Json)), "{line}");
            assert_eq!(range(&flags, 0).unwrap().from, from, "{line}");
        }
        assert!(matches!(Printed::parse(&flags("-o 7")), Ok(Printed::Pattern(_))));
    }

    #[test]
    fn two_meanings_at_once_are_refused() {
        for line in ["-o 5 --from-beginning", "-o 5 -o 6"] {
            assert_eq!(range(&flags(line), 0).unwrap_err().exit_code(), 2, "{line}");
        }
        assert_eq!(Printed::parse(&flags("-f %k -o json")).unwrap_err().exit_code(), 2);
    }
}
