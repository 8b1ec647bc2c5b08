//! `consume`.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    thread,
    time::Instant,
};

use varve_broker::config::Sources;

use crate::{
    args::Consume,
    client::{Client, ClientError, Topic, offsets::Place},
    failure::Failure,
    limits,
    pattern::Pattern,
    place::{self, Point, Range},
    record::Record,
};

/// How a record is printed.
enum Printed {
    Pattern(Pattern),
    Json,
}

impl Printed {
    fn parse(format: &str) -> Result<Self, Failure> {
        if format == "json" {
            return Ok(Self::Json);
        }
        let pattern = Pattern::parse(format);
        pattern.map(Self::Pattern).map_err(|why| Failure::usage(format!("-f {format:?}: {why}")))
    }

    fn write(&self, record: &Record, out: &mut Vec<u8>) {
        match self {
            Self::Pattern(pattern) => pattern.write(record, out),
            Self::Json => {
                out.extend_from_slice(record.to_json().to_string().as_bytes());
                out.push(b'\n');
            }
        }
    }
}

pub fn run(flags: &Consume, sources: &Sources) -> Result<(), Failure> {
    let printed = Printed::parse(&flags.format)?;
    let range =
        place::parse(&flags.offset, super::now_ms()).map_err(|why| Failure::usage(format!("-o {why}")))?;
    let mut client = super::client(&flags.brokers, sources);
    let topic = client.topic(&flags.topic, false)?;
    let plan = Plan::resolve(&mut client, &topic, &flags.partitions, range, flags.exit)?;
    let left = flags.count.unwrap_or(u64::MAX);
    Reader { client, topic, plan, printed, left }.run()
}

/// Per partition the next offset to read, and where to stop.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub positions: BTreeMap<i32, i64>,
    pub ends: BTreeMap<i32, i64>,
}

impl Plan {
    /// Turns points into offsets. `exits` stops at what is the end now.
    pub fn resolve(
        client: &mut Client,
        topic: &Topic,
        chosen: &[i32],
        range: Range,
        exits: bool,
    ) -> Result<Self, ClientError> {
        let positions = resolve(client, topic, chosen, range.from)?;
        let mut ends = match range.to {
            Some(to) => resolve(client, topic, chosen, to)?,
            None => BTreeMap::new(),
        };
        if exits {
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

fn resolve(
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
        match self.client.topic(&self.topic.name, false) {
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
