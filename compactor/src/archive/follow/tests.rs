use varve_common::Term;
use varve_formats::state::Archived;

use super::*;
use crate::history::testing::{Bucket, TERM, block_on};

/// About a hundred records a file.
const FILE_BYTES: u64 = 400;

/// A group as far as its archive goes: what is told to it is what it knows.
struct Group {
    root: Root,
    offsets: Range<Offset>,
    archive: ArchiveState,
    kept: Kept,
    look: bool,
}

impl Group {
    fn of(root: &Root, end: u64) -> Self {
        let archive = ArchiveState::starting_at(Offset(0));
        let offsets = Offset(0)..Offset(end);
        Self { root: root.clone(), offsets, archive, kept: Kept::default(), look: true }
    }

    fn step(&mut self, bucket: &Bucket) -> Result<Step, ExportError> {
        let (identity, budget) = (bucket.identity(1), UploadBudget::new(1 << 20));
        let follower = Follower {
            store: &*bucket.store,
            keys: &bucket.keys,
            budget: &budget,
            kept: &self.kept,
            file_bytes_max: FILE_BYTES,
        };
        let (root, offsets, archive) = (&self.root, &self.offsets, &self.archive);
        let of = Partition { identity: &identity, root, offsets, archive };
        block_on(follower.step(of, self.look))
    }

    fn tell(&mut self, step: Step) {
        match step {
            Step::Measured { plan, alone } => {
                assert!(self.archive.plan(plan), "{plan:?} after {:?}", self.archive);
                self.look = !alone;
            }
            Step::Done { base, end, newest_ms, file } => {
                let archived = Archived { term: Term(1), base, end, newest_ms, file };
                assert!(self.archive.advance(&archived), "{archived:?} after {:?}", self.archive);
            }
            Step::Nothing => panic!("nothing to do after {:?}", self.archive),
        }
    }

    fn run(&mut self, bucket: &Bucket) {
        while self.archive.plan.is_some() || self.archive.end < self.offsets.end {
            let step = self.step(bucket).unwrap();
            self.tell(step);
        }
    }
}

/// Names and bytes of what lies in the archive.
fn archive(bucket: &Bucket) -> Vec<(String, Bytes)> {
    let objects = bucket.store.objects().into_iter();
    let mut found: Vec<_> = objects
        .filter(|(key, _)| key.as_str().contains("/archive"))
        .map(|(key, bytes)| (key.as_str().to_owned(), bytes))
        .collect();
    found.sort();
    found
}

fn ranges(bucket: &Bucket) -> Vec<(u64, u64)> {
    let files = archive(bucket).into_iter().filter(|(key, _)| key.ends_with(".parquet"));
    let range = |key: String| {
        let name = key.rsplit('/').next().unwrap().to_owned();
        (name[..20].parse().unwrap(), name[21..41].parse::<u64>().unwrap() + 1)
    };
    files.map(|(key, _)| range(key)).collect()
}

fn filled() -> (Bucket, Root) {
    let bucket = Bucket::new();
    let root = bucket.manifest(300, 4);
    (bucket, root)
}

#[test]
fn history_becomes_files_without_gap_and_overlap_and_each_has_its_entry() {
    let (bucket, root) = filled();
    let mut group = Group::of(&root, 300);
    group.run(&bucket);
    let found = ranges(&bucket);
    assert!(found.len() >= 3 && found[0].0 == 0 && found[found.len() - 1].1 == 300, "{found:?}");
    assert!(found.windows(2).all(|pair| pair[0].1 == pair[1].0), "{found:?}");
    assert_eq!(archive(&bucket).len(), 2 * found.len());
    assert_eq!((group.archive.files, group.archive.records), (found.len() as u64, 300));
    assert_eq!(group.archive.newest_ms, 1_299);
}

/// Whoever ends after whichever step, what comes next makes the same bytes.
#[test]
fn a_step_that_was_lost_is_taken_again_and_makes_the_same() {
    let (bucket, root) = filled();
    Group::of(&root, 300).run(&bucket);
    let wanted = archive(&bucket);
    let (bucket, root) = filled();
    let mut group = Group::of(&root, 300);
    while group.archive.end < group.offsets.end {
        let _ = group.step(&bucket).unwrap();
        (group.kept, group.look) = (Kept::default(), true);
        let step = group.step(&bucket).unwrap();
        group.tell(step);
        (group.kept, group.look) = (Kept::default(), true);
    }
    assert!(archive(&bucket) == wanted, "other files");
}

#[test]
fn two_leaders_make_one_file_and_tell_of_it_alike() {
    let (bucket, root) = filled();
    let mut first = Group::of(&root, 300);
    let measured = first.step(&bucket).unwrap();
    first.tell(measured);
    let mut second = Group::of(&root, 300);
    second.tell(measured);
    assert_eq!(first.step(&bucket).unwrap(), second.step(&bucket).unwrap());
    assert_eq!(archive(&bucket).len(), 2);
}

/// As of a release that encodes otherwise: what is there says that it is this file, and counts.
#[test]
fn what_is_there_under_an_announced_name_counts_where_it_is_that_file() {
    let (bucket, root) = filled();
    let mut other = Group::of(&root, 300);
    let measured = other.step(&bucket).unwrap();
    other.tell(measured);
    (other.kept, other.offsets.start) = (Kept::default(), Offset(20));
    let Step::Done { file: Some(theirs), .. } = other.step(&bucket).unwrap() else { panic!("no file") };
    let mut group = Group::of(&root, 300);
    let _ = group.step(&bucket).unwrap();
    group.tell(measured);
    let Step::Done { file: Some(file), .. } = group.step(&bucket).unwrap() else { panic!("no file") };
    assert_eq!((file.sha256, file.records), (theirs.sha256, theirs.records));

    let (bucket, root) = filled();
    let mut group = Group::of(&root, 300);
    let step = group.step(&bucket).unwrap();
    group.tell(step);
    let Step::Measured { plan, .. } = step else { panic!("{step:?}") };
    let identity = bucket.identity(1);
    let place = Place {
        store: &*bucket.store,
        keys: &bucket.keys,
        format: &Parquet,
        topic: &identity.topic,
        topic_id: identity.topic_id,
        partition: identity.partition,
    };
    bucket
        .put(&place.file(Day(plan.day).date(), &(plan.base..plan.end)), Bytes::from_static(b"a stranger's"));
    assert!(matches!(group.step(&bucket), Err(ExportError::Taken(_))));
}

#[test]
fn what_was_trimmed_is_passed_and_a_file_keeps_its_announced_name() {
    let (bucket, root) = filled();
    let mut group = Group::of(&root, 300);
    let step = group.step(&bucket).unwrap();
    group.tell(step);
    let plan = group.archive.plan.unwrap();
    (group.offsets.start, group.kept) = (Offset(20), Kept::default());
    let step = group.step(&bucket).unwrap();
    group.tell(step);
    assert_eq!(ranges(&bucket), [(0, plan.end.0)]);
    assert_eq!(group.archive.records, plan.end.0 - 20);

    let step = group.step(&bucket).unwrap();
    group.tell(step);
    let plan = group.archive.plan.unwrap();
    (group.offsets.start, group.kept) = (plan.end.next(), Kept::default());
    let step = group.step(&bucket).unwrap();
    assert!(matches!(step, Step::Done { file: None, .. }), "{step:?}");
    group.tell(step);
    group.run(&bucket);
    let found = ranges(&bucket);
    assert_eq!((found[1].0, group.archive.skipped), (plan.end.next().0, plan.end.next().0 - plan.base.0));
}

/// A cluster that was restored from an older checkpoint finds the files that were made since; so does one beside whose files others lie.
#[test]
fn files_that_the_group_does_not_know_are_taken_in_or_passed() {
    let (bucket, root) = filled();
    Group::of(&root, 300).run(&bucket);
    let before = archive(&bucket);
    let mut restored = Group::of(&root, 300);
    restored.run(&bucket);
    assert!(archive(&bucket) == before, "files were made beside those that were there");
    assert_eq!((restored.archive.files, restored.archive.skipped), (before.len() as u64 / 2, 0));

    // One that begins before what is known ends.
    let mut behind = Group::of(&root, 300);
    let inside = ranges(&bucket)[1].0 + 10;
    behind.archive = ArchiveState::starting_at(Offset(inside));
    behind.run(&bucket);
    assert!(archive(&bucket) == before);
    assert!(behind.archive.skipped > 0);

    // And one behind a gap: what is missing is made, up to it.
    let (last, _) = before.iter().rev().find(|(key, _)| key.ends_with(".parquet")).unwrap();
    let (bucket, root) = filled();
    for (key, bytes) in before.iter().filter(|(key, _)| key == last) {
        bucket.put(&ObjectKey::new(key.clone()), bytes.clone());
    }
    Group::of(&root, 300).run(&bucket);
    let found = ranges(&bucket);
    assert!(found[0].0 == 0 && found.windows(2).all(|pair| pair[0].1 == pair[1].0), "{found:?}");
}

#[test]
fn a_damaged_segment_is_an_error_and_nothing_of_its_range_is_put() {
    let (bucket, root) = filled();
    let (name, ..) = bucket.segment_bytes(10..20, TERM.0, "");
    let key = bucket.keys.build(&Key::Segment(bucket.at(), name));
    bucket.tamper(&key, |bytes| bytes[40] ^= 1);
    let mut group = Group::of(&root, 300);
    let error = group.step(&bucket).unwrap_err();
    assert!(matches!(error, ExportError::Read(_)), "{error}");
    assert_eq!(archive(&bucket), []);
    bucket.tamper(&key, |bytes| bytes[40] ^= 1);
    group.run(&bucket);
}
