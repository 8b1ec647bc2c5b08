//! Segments that were put and are not in the manifest yet: between the checkpoint and the end of the cluster's life.
//!
//! ```text
//! manifest ………end|
//!    seg/         |[end … a]             one object: it is verified whole and taken
//!                           |[b … c]     two of one range, of two leaders: equal records, the higher term is taken
//!                            [b … c]
//!                                   |    [e … f]    a gap: nothing behind it is
//! ```
//! Only segments as they were rolled, of the life that is read: rolls are committed commands, so the bounds of segments are
//! equal on all replicas, and what is merged or compacted follows another's manifest (TIERING.md 7). Two objects that overlap
//! otherwise, or hold other records, are a fork: nobody here can say which of them was acknowledged, so the tail ends before
//! them and says so.

use std::collections::BTreeMap;

use varve_common::{Digest, LogIndex, ObjectKey, Offset, Term};
use varve_formats::{
    PartitionIdentity,
    keys::{Key, Keys, PartitionKeys, SegmentName},
    manifest::{Entry, EntryKind},
    segment::{Footer, SegmentState, verify},
};
use varve_objects::{Failure, Store};
use varve_snapshot::limits::READS_MAX;
use varve_tiering::upload::STORE_ID;

use super::{History, Trouble};

/// How many objects of a tail are listed: a broker publishes a checkpoint every few segments.
pub(super) const NAMES_MAX: usize = 1 << 20;

/// One segment of a tail, verified whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TailSegment {
    /// Where it is.
    pub key: ObjectKey,
    /// What a manifest would say of it.
    pub entry: Entry,
}

/// Why a tail goes no further.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Stop {
    /// Nothing lies behind it.
    #[default]
    End,
    /// What follows does not continue it.
    Gap {
        /// Where the tail ends.
        end: Offset,
        /// Where the next object begins.
        next: Offset,
    },
    /// Objects overlap and do not hold the same records.
    Fork {
        /// Where the first of them begins.
        base: Offset,
        /// Which.
        keys: Vec<ObjectKey>,
    },
    /// The only object that goes on is not whole.
    Broken {
        /// Which.
        key: ObjectKey,
        /// What is wrong.
        trouble: Trouble,
    },
    /// The object that goes on is of another lineage: its place in the log is not behind that of the one before.
    Stray(ObjectKey),
}

impl Stop {
    /// Whether something is wrong.
    #[must_use]
    pub const fn is_damage(&self) -> bool {
        matches!(self, Self::Fork { .. } | Self::Broken { .. })
    }
}

/// What lies behind a manifest's end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tail {
    /// In order, without a gap.
    pub segments: Vec<TailSegment>,
    /// Producers and epochs at its end, and the transactions that were aborted within it; `None` where it is empty.
    pub state: Option<SegmentState>,
    /// Objects that are not whole, beside others of the same range that are.
    pub passed: Vec<(ObjectKey, Trouble)>,
    /// Whole objects that hold what is there already.
    pub twins: Vec<ObjectKey>,
    /// Why it ends there.
    pub stop: Stop,
    /// How many segments are listed behind its end.
    pub behind: usize,
}

/// Where a tail begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct From {
    /// The manifest's end.
    pub end: Offset,
    /// Up to here what was never tiered may be missing.
    pub log_start: Offset,
    /// The roll and the term of what comes before.
    pub after: (LogIndex, Term),
}

/// A listed segment.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Name {
    name: SegmentName,
    bytes: u64,
}

type Names = BTreeMap<Offset, Vec<Name>>;

/// What stands for one range: the highest term first.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Link(Vec<Name>);

/// Finds the tail of a partition.
pub(super) async fn discover(
    history: &History,
    identity: &PartitionIdentity,
    from: From,
) -> Result<Tail, Failure> {
    let PartitionIdentity { topic_id, partition, incarnation, .. } = *identity;
    let at = PartitionKeys { topic_id, partition, incarnation };
    let (store, keys) = (&*history.store, &history.keys);
    let names = list(store, keys, at, from.end).await?;
    let mut search = Search { history, identity, at, tail: Tail::default(), after: from.after };
    let mut end = from.end;
    loop {
        let link = match next_link(&names, end, from.log_start) {
            Ok(link) => link,
            Err(unnamed) => {
                search.tail.stop = unnamed.into_stop(|name| search.key(name));
                break;
            }
        };
        match search.follow(link).await? {
            Ok(next) => end = next,
            Err(stop) => {
                search.tail.stop = stop;
                break;
            }
        }
    }
    search.tail.behind = names.range(end..).map(|(_, twins)| twins.len()).sum();
    Ok(search.tail)
}

async fn list(store: &dyn Store, keys: &Keys, at: PartitionKeys, end: Offset) -> Result<Names, Failure> {
    let folder = keys.segments(at);
    // Sorts before every name that begins at `end`, and behind all that begin below.
    let mut last = ObjectKey::new(format!("{folder}/{:020}", end.0));
    let (mut names, mut count) = (Names::new(), 0);
    loop {
        let page = store.list(&folder, Some(&last)).await?;
        let Some(newest) = page.objects.last() else { return Ok(names) };
        last = newest.key.clone();
        for listed in page.objects {
            if let Ok(Key::Segment(_, name)) = keys.parse(&listed.key)
                && name.base >= end
                && name.last >= name.base
            {
                names.entry(name.base).or_default().push(Name { name, bytes: listed.bytes });
                count += 1;
            }
        }
        if count > NAMES_MAX {
            return Err(Failure::Invalid(format!("{folder}: more than {NAMES_MAX} objects behind {end}")));
        }
        if !page.more {
            return Ok(names);
        }
    }
}

/// [`Stop`] before keys are made of names.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Unnamed {
    End,
    Gap { end: Offset, next: Offset },
    Fork(Vec<SegmentName>),
}

impl Unnamed {
    fn into_stop(self, key: impl Fn(SegmentName) -> ObjectKey) -> Stop {
        match self {
            Self::End => Stop::End,
            Self::Gap { end, next } => Stop::Gap { end, next },
            Self::Fork(names) => Stop::Fork {
                base: names.iter().map(|name| name.base).min().unwrap_or_default(),
                keys: names.into_iter().map(key).collect(),
            },
        }
    }
}

/// The next step of the way, by names alone.
fn next_link(names: &Names, end: Offset, log_start: Offset) -> Result<Link, Unnamed> {
    let Some((base, twins)) = names.range(end..).next() else { return Err(Unnamed::End) };
    if *base > end && *base > log_start {
        return Err(Unnamed::Gap { end, next: *base });
    }
    let last = twins.iter().map(|twin| twin.name.last).max().unwrap_or(*base);
    let within = names.range(base.next()..).take_while(|(other, _)| **other <= last);
    let others: Vec<SegmentName> = within.flat_map(|(_, others)| others).map(|other| other.name).collect();
    if !others.is_empty() || twins.iter().any(|twin| twin.name.last != last) {
        return Err(Unnamed::Fork(twins.iter().map(|twin| twin.name).chain(others).collect()));
    }
    let mut twins = twins.clone();
    twins.sort_by_key(|twin| std::cmp::Reverse((twin.name.term, twin.name.uid)));
    Ok(Link(twins))
}

/// One verified object: what is kept of it.
struct Whole {
    key: ObjectKey,
    footer: Footer,
    entry: Entry,
    state: SegmentState,
}

impl Whole {
    /// Equal for equal records: the batches' own checksums, in order.
    const fn records(&self) -> (u64, u64, u32) {
        (self.footer.count, self.footer.batch_bytes, self.footer.batch_crcs)
    }
}

struct Search<'a> {
    history: &'a History,
    identity: &'a PartitionIdentity,
    at: PartitionKeys,
    tail: Tail,
    after: (LogIndex, Term),
}

impl Search<'_> {
    fn key(&self, name: SegmentName) -> ObjectKey {
        self.history.keys.build(&Key::Segment(self.at, name))
    }

    /// Takes the object that goes on, and says where that ends.
    async fn follow(&mut self, link: Link) -> Result<Result<Offset, Stop>, Failure> {
        let (mut whole, mut broken) = (Vec::<Whole>::new(), Vec::new());
        for name in &link.0 {
            match self.read(name).await {
                Ok(read) => whole.push(read),
                Err(Trouble::Unread(failure)) => return Err(failure),
                Err(trouble) => broken.push((self.key(name.name), trouble)),
            }
        }
        let Some(first) = whole.first() else {
            let (key, trouble) = broken.swap_remove(0);
            return Ok(Err(Stop::Broken { key, trouble }));
        };
        if whole.iter().any(|other| other.records() != first.records()) {
            let keys = whole.into_iter().map(|whole| whole.key).collect();
            return Ok(Err(Stop::Fork { base: link.0[0].name.base, keys }));
        }
        let (roll, term) = self.after;
        if first.footer.first_index <= roll || first.footer.terms.0 < term {
            return Ok(Err(Stop::Stray(first.key.clone())));
        }
        self.tail.passed.append(&mut broken);
        let mut whole = whole.into_iter();
        let taken = whole.next().expect("there is a first");
        self.tail.twins.extend(whole.map(|twin| twin.key));
        self.take(taken);
        Ok(Ok(link.0[0].name.last.next()))
    }

    fn take(&mut self, taken: Whole) {
        self.after = (taken.footer.roll_index, taken.footer.terms.1);
        let mut state = taken.state;
        // The state is that of the end, but a segment says which transactions were aborted within it.
        if let Some(before) = self.tail.state.take() {
            state.aborted.splice(0..0, before.aborted);
        }
        self.tail.state = Some(state);
        self.tail.segments.push(TailSegment { key: taken.key, entry: taken.entry });
    }

    /// Reads all of it and holds it against its name.
    async fn read(&self, name: &Name) -> Result<Whole, Trouble> {
        let key = self.key(name.name);
        let mut trouble = Trouble::Missing;
        for _ in 0..READS_MAX {
            let _held = self.history.memory.reserve(name.bytes).await;
            let bytes = self.history.store.get(&key).await?;
            let verified = match verify(&bytes) {
                Ok(verified) if bytes.len() as u64 == name.bytes => verified,
                Ok(_) => {
                    trouble = Trouble::Damaged("it is not as long as the listing says".to_owned());
                    continue;
                }
                Err(error) => {
                    trouble = error.into();
                    continue;
                }
            };
            let footer = verified.footer;
            let range = (footer.base, footer.last) == (name.name.base, name.name.last);
            let ours = footer.identity.same_partition(self.identity)
                && footer.identity.incarnation == self.identity.incarnation;
            if !range || !ours || footer.kind != EntryKind::Raw || footer.encryption.is_some() {
                return Err(Trouble::Damaged("a segment of another partition, life or range".to_owned()));
            }
            let entry = footer.entry(name.name, STORE_ID, bytes.len() as u64, Digest::of(&bytes));
            return Ok(Whole { key, footer, entry, state: verified.state });
        }
        Err(trouble)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(base: u64, last: u64, term: u64) -> Name {
        let name = SegmentName { base: Offset(base), last: Offset(last), term: Term(term), uid: term };
        Name { name, bytes: 1 }
    }

    fn names(all: &[Name]) -> Names {
        let mut names = Names::new();
        all.iter().for_each(|one| names.entry(one.name.base).or_default().push(one.clone()));
        names
    }

    fn step(all: &[Name], end: u64, log_start: u64) -> Result<Link, Unnamed> {
        next_link(&names(all), Offset(end), Offset(log_start))
    }

    #[test]
    fn of_one_range_the_highest_term_comes_first() {
        let link = step(&[name(10, 19, 3), name(10, 19, 5), name(20, 29, 3)], 10, 0).unwrap();
        assert_eq!(link, Link(vec![name(10, 19, 5), name(10, 19, 3)]));
    }

    #[test]
    fn a_gap_is_one_unless_all_of_it_was_trimmed() {
        let listed = [name(12, 19, 3)];
        let gap = Unnamed::Gap { end: Offset(10), next: Offset(12) };
        assert_eq!(step(&listed, 10, 11), Err(gap));
        assert_eq!(step(&listed, 10, 12), Ok(Link(vec![name(12, 19, 3)])));
        assert_eq!(step(&listed, 20, 0), Err(Unnamed::End));
    }

    #[test]
    fn ranges_that_overlap_otherwise_are_a_fork() {
        for other in [name(10, 14, 4), name(15, 24, 4), name(19, 19, 4)] {
            assert!(
                matches!(step(&[name(10, 19, 3), other], 10, 0), Err(Unnamed::Fork(both)) if both.len() == 2)
            );
        }
    }
}
