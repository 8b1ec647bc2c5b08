//! What was restored against what the bucket holds.

use std::{collections::BTreeMap, ops::Range};

use varve_common::Offset;
use varve_compactor::{
    copy::CopiedPartition,
    history::{Found as Walked, HistoryError, View},
};
use varve_formats::manifest::Entry;
use varve_protocol::messages::Uuid;

use super::{
    expected::Expected,
    report::{Kind, Report, Row},
    tally::{Sum, Tally},
    trial,
};
use crate::{
    client::{Client, ClientError, Missing, Topic, offsets::Place, retrying},
    failure::Failure,
    limits::FETCH_RETRY_MAX,
};

/// Both looks at the bucket, and the broker.
pub struct Comparison {
    pub first: Expected,
    pub second: Expected,
    /// Where the broker listens.
    pub seeds: Vec<String>,
    pub report: Report,
}

/// What was found of one partition.
struct Found {
    /// None where nothing could be compared.
    row: Option<Row>,
    problems: Vec<(Kind, String)>,
    note: Option<String>,
}

/// From where to where a partition goes, for all who were asked.
struct Bounds {
    /// The end as of the first look, where it had something.
    first: Option<Offset>,
    copied: Range<Offset>,
    restored: Range<Offset>,
    /// As of the second look.
    now: Range<Offset>,
}

impl Bounds {
    /// What is wrong with where it ends.
    fn wrong_ends(&self) -> Vec<String> {
        let Self { first, copied, restored, now } = self;
        let mut wrong = Vec::new();
        // Behind what holds no record offsets were given out all the same.
        let has_records = copied.start < copied.end;
        if restored.end < copied.end || has_records && restored.end != copied.end {
            wrong.push(format!("it ends at {}, and what was copied ends at {}", restored.end, copied.end));
        }
        let end = copied.end.max(copied.start);
        if let Some(first) = first.filter(|first| end < *first) {
            wrong.push(format!("what was copied ends at {end}, and the bucket had ended at {first}"));
        }
        if now.end < copied.end {
            wrong.push(format!(
                "the bucket ends at {} by now, and what was copied at {}",
                now.end, copied.end
            ));
        }
        wrong
    }
}

/// What a topic does not keep.
struct Expiry {
    /// Older is too old.
    oldest_ms: Option<i64>,
    /// More is too much.
    bytes: Option<u64>,
    /// Of what has gone.
    newest_gone_ms: i64,
    /// What there is with that.
    held: u64,
}

impl Expiry {
    fn take(&mut self, entry: &Entry, is_gone: bool) {
        self.held += entry.batch_bytes;
        if is_gone {
            self.newest_gone_ms = self.newest_gone_ms.max(entry.max_timestamp);
        }
    }

    fn explains(&self) -> bool {
        self.oldest_ms.is_some_and(|oldest| self.newest_gone_ms < oldest)
            || self.bytes.is_some_and(|bytes| self.held > bytes)
    }
}

impl Comparison {
    /// Every record of what was copied.
    pub async fn records(&mut self, chosen: &[CopiedPartition]) -> Result<(), Failure> {
        for copied in chosen {
            let Found { row, problems, note } = self.partition(copied).await?;
            let of = format!("{}-{}", copied.topic, copied.partition);
            problems.into_iter().for_each(|(kind, what)| self.report.problem(kind, &of, what));
            self.report.notes.extend(note.map(|note| format!("{of}: {note}")));
            self.report.rows.extend(row);
        }
        Ok(())
    }

    async fn partition(&self, copied: &CopiedPartition) -> Result<Found, Failure> {
        let view = match self.second.view(&copied.topic, copied.partition).await {
            Ok(view) => view,
            Err(HistoryError::NoTopic(_)) => {
                let note = Some("it was deleted meanwhile, and is not compared".to_owned());
                return Ok(Found { row: None, problems: Vec::new(), note });
            }
            Err(why) => {
                let problem = trial::judge(why.into())?;
                return Ok(Found { row: None, problems: vec![problem], note: None });
            }
        };
        let restored = self.bounds(copied).await?;
        let bounds = Bounds {
            first: self.first.end(&copied.topic, copied.partition),
            copied: copied.start..copied.end,
            restored: restored.clone(),
            now: view.start()..view.end(),
        };
        let wrong = bounds.wrong_ends().into_iter().map(|what| (Kind::Records, what));
        let mut problems: Vec<(Kind, String)> = wrong.collect();
        // A cluster that lives deletes what it does not keep any longer, and so does the one that was restored.
        let kept = bounds.copied.start.max(bounds.now.start).min(copied.end);
        let from = kept.max(restored.start).min(copied.end);
        if from > kept && !self.has_expired(copied, &view, kept..from).await? {
            let what = format!("it begins at {}, and what was copied at {kept}", restored.start);
            problems.push((Kind::Records, what));
        }
        let deleted = from > copied.start;
        let note = deleted
            .then(|| format!("{} to {from} were deleted meanwhile, and are not compared", copied.start));
        let range = from..copied.end.min(view.end()).max(from);
        let theirs = self.read_back(copied, range.clone());
        let (ours, theirs) = tokio::join!(self.second.sum(&view, range.clone()), theirs);
        let sum = match (&ours, &theirs) {
            (Ok(ours), Ok(theirs)) if ours == theirs => *ours,
            (Ok(ours), Ok(theirs)) => {
                problems.push((Kind::Records, differ(ours, theirs)));
                *theirs
            }
            (Err(why), _) => {
                problems.push((Kind::Unread, format!("the bucket: {why}")));
                Sum::default()
            }
            (_, Err(why)) => {
                problems.push((Kind::Records, format!("the restored broker does not give it: {why}")));
                Sum::default()
            }
        };
        let (topic, partition) = (copied.topic.clone(), copied.partition.0);
        let row = Some(Row { topic, partition, range, sum, is_same: problems.is_empty() });
        Ok(Found { row, problems, note })
    }

    /// Whether the topic's retention says by now that all of this goes, as a broker judges it: segment by segment, from the first.
    async fn has_expired(
        &self,
        copied: &CopiedPartition,
        view: &View,
        gone: Range<Offset>,
    ) -> Result<bool, Failure> {
        let name = copied.topic.clone();
        let configs = self.ask(move |client| client.topic_configs(&name)).await?;
        let limit = |name: &str| {
            let config = configs.iter().find(|config| config.name == name);
            config.and_then(|config| config.value.as_deref()?.parse::<u64>().ok())
        };
        let mut retention = Expiry {
            oldest_ms: limit("retention.ms").map(|ms| crate::commands::now_ms().saturating_sub_unsigned(ms)),
            bytes: limit("retention.bytes"),
            newest_gone_ms: -1,
            held: 0,
        };
        let mut walk = view.walk(&self.second.history, gone.start);
        while let Some(found) = walk.next().await {
            if let Walked::Entry(entry) = found {
                if entry.base < gone.end && entry.end() > gone.end {
                    return Ok(false);
                }
                retention.take(&entry, entry.base < gone.end);
            }
        }
        Ok(retention.explains())
    }

    /// From where to where a partition is readable.
    async fn bounds(&self, copied: &CopiedPartition) -> Result<Range<Offset>, Failure> {
        let (name, number) = (copied.topic.clone(), copied.partition.0);
        let told = self.ask(move |client| {
            let topic = client.topic(&name, Missing::Report)?;
            let mut at = |place| client.offsets(&topic, &[number], place).map(|all| all[&number]);
            Ok((at(Place::Earliest)?, at(Place::Latest)?))
        });
        let (start, end) = told.await?;
        let offset = |number: i64| Offset(u64::try_from(number).unwrap_or_default());
        Ok(offset(start)..offset(end))
    }

    /// What the broker's records of a range come to.
    async fn read_back(&self, copied: &CopiedPartition, range: Range<Offset>) -> Result<Sum, ClientError> {
        let (name, number) = (copied.topic.clone(), copied.partition.0);
        self.ask(move |client| {
            let topic = client.topic(&name, Missing::Report)?;
            read(client, &topic, number, range.start.to_wire()..range.end.to_wire())
        })
        .await
    }

    /// Asks the broker with a client of its own, on a thread that may wait.
    async fn ask<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&mut Client) -> Result<T, ClientError> + Send + 'static,
    ) -> Result<T, ClientError> {
        let seeds = self.seeds.clone();
        let asked = tokio::task::spawn_blocking(move || ask(&mut Client::new(seeds)));
        asked.await.expect("a client does not panic")
    }

    /// Topics, their configurations, and what groups have committed for `chosen`.
    pub async fn state(&mut self, chosen: &[CopiedPartition]) -> Result<(), Failure> {
        self.topics().await?;
        let (first, second) = (self.first.committed(), self.second.committed());
        let groups: Vec<String> = first.keys().cloned().collect();
        let told = self.ask(move |client| {
            let each = groups.into_iter().map(|group| Ok((group.clone(), client.committed(&group)?)));
            each.collect::<Result<BTreeMap<_, _>, ClientError>>()
        });
        let told = told.await?;
        let is_chosen = |topic: &str, partition: i32| {
            chosen.iter().any(|at| at.topic == topic && at.partition.0 == partition)
        };
        for (group, offsets) in first {
            self.report.groups += 1;
            let now = second.get(&group);
            for (at, offset) in offsets.into_iter().filter(|(at, _)| is_chosen(&at.0, at.1)) {
                self.report.offsets += 1;
                let restored = told.get(&group).and_then(|of| of.get(&at)).copied();
                let now = now.and_then(|of| of.get(&at)).copied();
                if !is_between(restored, offset, now) {
                    let restored = restored.map_or_else(|| "nothing".to_owned(), |at| at.to_string());
                    let what = format!("{}-{}: {restored} instead of {offset}", at.0, at.1);
                    self.report.problem(Kind::Offsets, &group, what);
                }
            }
        }
        Ok(())
    }

    async fn topics(&mut self) -> Result<(), Failure> {
        for (name, (id, partitions)) in self.first.topics() {
            self.report.topics += 1;
            let asked = name.clone();
            let told = self.ask(move |client| {
                let topic = client.topic(&asked, Missing::Report)?;
                Ok((topic, client.topic_configs(&asked)?))
            });
            let (topic, configs) = match told.await {
                Ok(told) => told,
                Err(_) if !self.second.topics().contains_key(&name) => {
                    self.report.notes.push(format!("{name}: it was deleted meanwhile"));
                    continue;
                }
                Err(why) => {
                    self.report.problem(Kind::Configuration, &name, why);
                    continue;
                }
            };
            let is_id = topic.id.is_none_or(|told| told == Uuid::from_bytes(id.0));
            let now = self.second.topics().get(&name).map_or(partitions, |now| now.1);
            if !is_id || !(partitions.min(now)..=partitions.max(now)).contains(&topic.partitions.len()) {
                let what =
                    format!("{} partitions instead of {partitions}, or another id", topic.partitions.len());
                self.report.problem(Kind::Configuration, &name, what);
            }
            let own = configs.into_iter().filter(|config| config.source == "DYNAMIC_TOPIC_CONFIG");
            let own: BTreeMap<String, String> =
                own.filter_map(|config| Some((config.name, config.value?))).collect();
            let wanted =
                [&self.first, &self.second].map(|look| look.configuration(&name).unwrap_or_default());
            self.report.configurations += own.len();
            if !wanted.contains(&own) {
                let what = format!("{own:?} instead of {:?}", wanted[0]);
                self.report.problem(Kind::Configuration, &name, what);
            }
        }
        Ok(())
    }
}

/// Whether a group is where it was at one of the two looks, or between: it may have gone on while the copy was made.
fn is_between(restored: Option<i64>, first: i64, second: Option<i64>) -> bool {
    let Some(restored) = restored else { return second.is_none() };
    let second = second.unwrap_or(first);
    (first.min(second)..=first.max(second)).contains(&restored)
}

fn differ(ours: &Sum, theirs: &Sum) -> String {
    if ours.records == theirs.records {
        return format!("its {} records are others than the bucket's", ours.records);
    }
    format!("{} records, and the bucket has {}", theirs.records, ours.records)
}

/// Reads a range as any client would.
pub fn read(
    client: &mut Client,
    topic: &Topic,
    partition: i32,
    range: Range<i64>,
) -> Result<Sum, ClientError> {
    let mut tally = Tally::default();
    let mut next = range.start;
    while next < range.end {
        let positions = BTreeMap::from([(partition, next)]);
        let fetched = retrying(FETCH_RETRY_MAX, || client.fetch(topic, &positions))?;
        for fetched in fetched {
            let within = fetched.records.iter().filter(|record| record.offset < range.end);
            within.for_each(|record| tally.take(record));
            next = fetched.next;
        }
    }
    Ok(tally.sum())
}

#[cfg(test)]
mod tests {
    use varve_common::LeaderEpoch;
    use varve_protocol::batch::{BatchBuilder, Codec, patch};

    use super::*;
    use crate::client::test_server::{Log, State, TestServer, logs};

    /// What a client reads of a broker with these values in batches of two.
    fn of(values: &[&str]) -> Sum {
        let mut log: Log = logs(1).remove(0);
        for pair in values.chunks(2) {
            let mut builder = BatchBuilder::new(Codec::None);
            pair.iter().for_each(|value| builder.push(1_000, None, Some(value.as_bytes())));
            let mut bytes = builder.build().to_vec();
            patch(&mut bytes, Offset(log.end as u64), LeaderEpoch(0));
            log.batches.push(bytes.into());
            log.end += pair.len() as i64;
        }
        let server =
            TestServer::start(State { topics: [("t".to_owned(), vec![log])].into(), ..State::default() });
        let mut client = server.client();
        let topic = client.topic("t", Missing::Report).unwrap();
        read(&mut client, &topic, 0, 0..values.len() as i64).unwrap()
    }

    #[test]
    fn a_partition_that_ends_before_what_was_copied_or_looked_at_is_told() {
        let at = |start: u64, end: u64| Offset(start)..Offset(end);
        let wrong = |first: Option<u64>, copied: (u64, u64), restored: (u64, u64), now: (u64, u64)| {
            let [copied, restored, now] = [copied, restored, now].map(|(start, end)| at(start, end));
            Bounds { first: first.map(Offset), copied, restored, now }.wrong_ends()
        };
        assert_eq!(wrong(Some(90), (10, 100), (10, 100), (10, 120)), Vec::<String>::new());
        assert_eq!(wrong(None, (100, 100), (100, 130), (100, 100)), Vec::<String>::new());
        // All was deleted, and offsets begin again at 0.
        assert_eq!(
            wrong(None, (100, 100), (0, 0), (100, 100)),
            ["it ends at 0, and what was copied ends at 100"]
        );
        assert_eq!(wrong(Some(90), (10, 100), (10, 101), (10, 100)).len(), 1);
        // The copy was cut short, and the broker and the second look agree with it.
        assert_eq!(
            wrong(Some(100), (10, 50), (10, 50), (10, 50)),
            ["what was copied ends at 50, and the bucket had ended at 100"]
        );
        assert_eq!(wrong(Some(100), (10, 100), (10, 100), (10, 50)).len(), 1);
    }

    #[test]
    fn what_a_broker_has_deleted_is_right_only_where_retention_says_so() {
        let gone = |oldest_ms, bytes| {
            let (newest_gone_ms, held) = (500, 1_000);
            Expiry { oldest_ms, bytes, newest_gone_ms, held }.explains()
        };
        assert!(!gone(None, None), "it is kept for ever");
        assert!(gone(Some(501), None) && !gone(Some(500), None));
        assert!(gone(None, Some(999)) && !gone(None, Some(1_000)));
    }

    #[test]
    fn a_broker_with_other_records_or_fewer_is_told_from_the_bucket() {
        let ours = of(&["a", "b", "c"]);
        assert_eq!((ours.records, ours.bytes), (3, 3));
        assert_eq!(of(&["a", "b", "c"]), ours);
        let theirs = of(&["a", "x", "c"]);
        assert_ne!(theirs, ours);
        assert_eq!(differ(&ours, &theirs), "its 3 records are others than the bucket's");
        assert_eq!(differ(&ours, &of(&["a", "b"])), "2 records, and the bucket has 3");
    }

    #[test]
    fn a_group_may_have_gone_on_while_it_was_copied_and_nothing_else() {
        assert!(is_between(Some(7), 7, Some(7)) && is_between(Some(8), 7, Some(9)));
        assert!(!is_between(Some(8), 7, Some(7)) && !is_between(Some(6), 7, Some(9)));
        assert!(!is_between(None, 7, Some(7)), "it is lost");
        assert!(is_between(None, 7, None), "it was deleted meanwhile");
    }
}
