//! A random workload with power cuts at random operations, against a model: what was synced is there, what was not is
//! a prefix of what was written, and nothing else is ever seen.

mod common;

use std::collections::BTreeMap;

use common::{all, entry, options, record, replica, start};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use varve_common::{GroupId, LogIndex, Offset, Term, WalPosition};
use varve_wal::{
    AppendError, Entry, Flight, GroupRecord, HardState, Options, Reader, Record, Recovery, SealMark, Writer,
    limits, open,
    testing::{Injected, MemoryDisk},
};

#[derive(Clone, Debug, Default, PartialEq)]
struct Group {
    replica: u64,
    truncated: (u64, u64),
    entries: Vec<Entry>,
    hard_state: Option<HardState>,
    seals: Vec<u64>,
}

impl Group {
    fn last(&self) -> u64 {
        self.entries.last().map_or(self.truncated.0, |entry| entry.index.0)
    }
}

type Model = BTreeMap<u64, Group>;

struct Run {
    random: ChaCha8Rng,
    model: Model,
    /// The model after each batch since (and with) the last that is durable, and where that batch ends.
    possible: Vec<(WalPosition, Model)>,
    /// One a lane, begun and not run.
    flights: [Option<Flight>; limits::LANES],
    incarnations: BTreeMap<u64, u64>,
}

impl Run {
    /// All below is durable: no state before that is seen again.
    fn settled(&mut self, synced: WalPosition) {
        let durable = self.possible.iter().rposition(|(end, _)| *end <= synced);
        self.possible.drain(..durable.unwrap_or(0));
    }

    fn batch(&mut self) -> Vec<GroupRecord> {
        let mut batch = Vec::new();
        for _ in 0..self.random.random_range(1..5) {
            let id = self.random.random_range(1..6);
            if !self.model.contains_key(&id) {
                let counter = self.incarnations.entry(id).and_modify(|counter| *counter += 1).or_insert(1);
                self.model.insert(id, Group { replica: *counter, ..Group::default() });
            }
            let group = self.model.get_mut(&id).unwrap();
            let made = draw(&mut self.random, group);
            let replica = replica(group.replica);
            batch.push(GroupRecord { group: GroupId(id), replica, record: made.clone() });
            if made == Record::Destroyed {
                self.model.remove(&id);
            }
        }
        batch
    }
}

fn draw(random: &mut ChaCha8Rng, group: &mut Group) -> Record {
    match random.random_range(0..20) {
        0..9 => {
            let last = group.last();
            let term = group.entries.last().map_or(group.truncated.1, |entry| entry.term.0).max(1);
            let conflict = random.random_bool(0.15) && last > group.truncated.0;
            let (first, term) = if conflict {
                (random.random_range(group.truncated.0 + 1..=last), term + 1)
            } else {
                (last + 1, term + u64::from(random.random_bool(0.1)))
            };
            group.entries.retain(|entry| entry.index.0 < first);
            let count = random.random_range(1..6);
            let bytes = [10, 100, 1000, 3000][random.random_range(0..4)];
            let new: Vec<Entry> = (first..first + count).map(|index| entry(index, term, bytes)).collect();
            group.entries.extend(new.iter().cloned());
            Record::Entries(new)
        }
        9..13 => {
            let term = group.hard_state.map_or(0, |state| state.term.0) + 1;
            // What is committed is never taken back.
            let commit = group.hard_state.unwrap_or_default().commit.max(LogIndex(group.last()));
            let state = HardState { term: Term(term), vote: term % 3, commit };
            group.hard_state = Some(state);
            Record::HardState(state)
        }
        13..17 if !group.entries.is_empty() => {
            let at = random.random_range(0..group.entries.len());
            let (index, term) = (group.entries[at].index, group.entries[at].term);
            group.entries.drain(..=at);
            group.truncated = (index.0, term.0);
            Record::Truncated { index, term }
        }
        17 => {
            // A snapshot from the leader that conflicts with, or lies beyond, the whole log.
            let index = group.last() + random.random_range(0..5);
            let term = group.entries.last().map_or(group.truncated.1, |entry| entry.term.0) + 1;
            if index <= group.truncated.0 {
                return Record::Unsealed { base: Offset(u64::MAX), end: Offset(u64::MAX) };
            }
            group.entries.clear();
            group.truncated = (index, term);
            Record::Truncated { index: LogIndex(index), term: Term(term) }
        }
        18 if random.random_bool(0.2) => Record::Destroyed,
        18 if !group.seals.is_empty() => {
            let base = group.seals.remove(0);
            Record::Unsealed { base: Offset(base), end: Offset(base + 1) }
        }
        _ => {
            let base = group.seals.last().map_or(0, |base| base + 1);
            group.seals.push(base);
            Record::Sealed(seal(base))
        }
    }
}

fn seal(base: u64) -> SealMark {
    SealMark {
        base: Offset(base),
        end: Offset(base + 1),
        first_index: LogIndex(1),
        last_index: LogIndex(2),
        last_term: Term(3),
        bytes: 4,
        sha256: varve_common::Digest([5; 32]),
    }
}

/// What the log holds, in the model's words.
fn seen(recovery: &Recovery, reader: &Reader) -> Model {
    let group = |(id, group): (&GroupId, &varve_wal::RecoveredGroup)| {
        assert_eq!(group.damage, None, "{id} is damaged without rot");
        let found = Group {
            replica: group.replica.get() & 0xff_ffff_ffff,
            truncated: (group.truncated.0.0, group.truncated.1.0),
            entries: all(reader, id.0),
            hard_state: group.hard_state,
            seals: group.seals.keys().map(|base| base.0).collect(),
        };
        (id.0, found)
    };
    recovery.groups.iter().map(group).collect()
}

/// Runs one seed; says what went wrong.
fn run(seed: u64, change: impl Fn(&mut Options)) -> Result<(), String> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut disk = MemoryDisk::default();
    let lives = random.random_range(2..5);
    let mut run = Run {
        random,
        model: Model::new(),
        possible: vec![(WalPosition::default(), Model::new())],
        flights: Default::default(),
        incarnations: BTreeMap::new(),
    };
    for life in 0..lives {
        let mut options = options(seed * 10 + life);
        options.file_bytes = 32 << 10;
        options.bytes_max = 1 << 30;
        change(&mut options);
        let (mut writer, reader, recovery) =
            open(std::sync::Arc::new(disk.clone()), options).map_err(|error| error.to_string())?;
        let found = std::panic::catch_unwind(|| seen(&recovery, &reader))
            .map_err(|_| format!("seed {seed}: damage"))?;
        // A batch is atomic: the log is exactly as it was after one of the batches since the last sync. A group that
        // got no effective record yet is not there.
        let Some(state) = run.possible.iter().map(|(_, model)| model).find(|model| same(model, &found))
        else {
            return Err(format!(
                "seed {seed} life {life}: found {:#?}\nnot in {:#?}",
                brief(&found),
                run.possible.iter().map(|(_, model)| brief(model)).collect::<Vec<_>>()
            ));
        };
        run.model = state.clone();
        run.possible = vec![(WalPosition::default(), run.model.clone())];
        run.flights = Default::default();
        let cut_at = disk.operations() + run.random.random_range(1..150);
        disk.inject(cut_at, Injected::Eio);
        let _ = work(&mut run, &mut writer, &reader);
        if writer.failure().is_none() && !same(&run.model, &live(&run.model, &reader)) {
            return Err(format!("seed {seed}: the running log differs"));
        }
        let cut = run.random.random_range(0..u64::MAX);
        disk = if run.random.random_bool(0.8) { disk.power_cut(cut) } else { disk.process_kill() };
    }
    Ok(())
}

fn brief(model: &Model) -> Vec<String> {
    model
        .iter()
        .map(|(id, group)| {
            let first = group.entries.first().map(|entry| entry.index.0);
            format!(
                "{id}: r{} t{:?} {first:?}..{} {:?} {:?}",
                group.replica,
                group.truncated,
                group.last(),
                group.hard_state.map(|h| h.term.0),
                group.seals
            )
        })
        .collect()
}

fn same(model: &Model, found: &Model) -> bool {
    let empty = |id: &u64, group: &Group| {
        *group == Group { replica: group.replica, ..Group::default() } && !found.contains_key(id)
    };
    model.iter().all(|(id, group)| found.get(id) == Some(group) || empty(id, group))
        && found.keys().all(|id| model.contains_key(id))
}

fn live(model: &Model, reader: &Reader) -> Model {
    let group = |(id, group): (&u64, &Group)| {
        let bounds = reader.bounds(GroupId(*id))?;
        let truncated = (bounds.truncated.0.0, bounds.truncated.1.0);
        Some((*id, Group { truncated, entries: all(reader, *id), ..group.clone() }))
    };
    model.iter().filter_map(group).collect()
}

/// Works until the injected failure or for a while.
fn work(run: &mut Run, writer: &mut Writer, reader: &Reader) -> Result<(), AppendError> {
    for _ in 0..run.random.random_range(10..120) {
        let before = run.model.clone();
        let batch = run.batch();
        let result = if run.random.random_bool(0.5) { writer.append(&batch) } else { writer.stage(&batch) };
        // Even a failed write may be there after the cut.
        let end = result.as_ref().map_or(WalPosition(u64::MAX), |end| *end);
        run.possible.push((end, run.model.clone()));
        if let Err(AppendError::Invalid { what, .. }) = &result {
            panic!("{what}: {batch:?} {:?}", brief(&before));
        }
        result?;
        if run.random.random_bool(0.4) {
            writer.sync().map_err(|error| error.0)?;
        }
        if run.random.random_bool(0.5) {
            let lane = run.random.random_range(0..limits::LANES);
            match run.flights[lane].take() {
                Some(flight) => flight.run().map_err(|error| error.0)?,
                None => run.flights[lane] = writer.begin_sync(lane).map_err(|error| error.0)?,
            }
        }
        run.settled(writer.synced_position());
        if run.random.random_bool(0.3) {
            writer.settle()?;
        }
        if run.random.random_bool(0.5) {
            let done = writer.maintain()?;
            assert!(done.rotten.is_empty());
        }
        let usage = reader.usage();
        assert_eq!(usage.live_bytes, usage.groups.values().sum::<u64>());
    }
    Ok(())
}

fn find_failure(seeds: std::ops::Range<u64>, change: impl Fn(&mut Options) + Copy) -> Option<String> {
    seeds.into_iter().find_map(|seed| run(seed, change).err())
}

#[test]
fn w1_w2_what_was_synced_survives_power_cuts_and_nothing_else_is_seen() {
    let seeds = std::env::var("VARVE_WAL_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(1500);
    assert_eq!(find_failure(0..seeds, |_| {}), None);
}

#[test]
fn w1_holds_with_direct_writes() {
    assert_eq!(find_failure(0..200, |options| options.access = varve_common::Access::Direct), None);
}

#[test]
fn seeded_bugs_are_caught() {
    let caught = |change: fn(&mut Options)| find_failure(0..600, change).is_some();
    let found = [
        ("ack_before_fsync", caught(|options| options.bugs.ack_before_fsync = true)),
        ("hard_state_not_persisted", caught(|options| options.bugs.hard_state_not_persisted = true)),
        ("torn_tail_appended_behind", caught(|options| options.bugs.torn_tail_appended_behind = true)),
        ("files_freed_out_of_order", caught(|options| options.bugs.files_freed_out_of_order = true)),
        ("queued_forward_rewrite", caught(|options| options.bugs.queued_forward_rewrite = true)),
    ];
    let missed: Vec<_> = found.iter().filter(|(_, caught)| !caught).collect();
    assert!(missed.is_empty(), "not caught: {missed:?}");
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let bytes = || {
        let disk = MemoryDisk::default();
        let (mut writer, _, _) = start(&disk, 1);
        writer.append(&[record(1, Record::Entries(vec![entry(1, 1, 100)]))]).unwrap();
        common::wal_files(&disk).iter().map(|path| disk.contents(path)).collect::<Vec<_>>()
    };
    assert_eq!(bytes(), bytes());
}

#[test]
fn w6_a_rewrite_split_by_a_crash_leaves_no_gap() {
    assert_eq!(find_failure(4745..4746, |_| {}), None);
}
