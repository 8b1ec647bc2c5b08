//! A group that was cut, sealed and checkpointed, opened again from what its disk holds (TIERING.md 5, 6; RAFT.md 1).

use varve_formats::state::ProducerEntry;

use super::*;

/// 0..5 tiered, 5..8 sealed, 8..10 open and below both checkpoints, 10.. above; cut as far as is safe.
fn cut() -> Node {
    let mut node = Node::ready();
    let first = node.roll((9, 0, 0), 5);
    node.tier(1, first);
    let second = node.roll((9, 0, 5), 3);
    node.seal(second);
    node.send_all([8, 9]);
    node.checkpoint();
    node.send_all([10, 11]);
    node.checkpoint();
    node.cut();
    node.send_all([12, 13]);
    node
}

impl Node {
    /// One record per batch, so that sequence and offset are equal.
    fn send_all(&mut self, sequences: impl IntoIterator<Item = i32>) {
        for sequence in sequences {
            self.send((9, 0, sequence), 1);
        }
        self.settle();
    }

    fn seal(&mut self, range: RollRange) {
        self.act(Action::Seal { base: range.base });
        let Job::Seal { roll, .. } = self.job() else { panic!("not a seal") };
        self.done(JobOutcome::Sealed(seal_of(&roll)));
    }

    fn cut(&mut self) {
        let (index, term) = self.status().cut_limit;
        self.act(Action::Cut { index, term });
    }

    fn state(&self) -> PartitionState {
        replayed(&self.disk)
    }

    fn damage(&mut self, checkpoint: usize) {
        let file = self.disk.snapshots[checkpoint].file.clone();
        let bytes = self.disk.files.get_mut(&file).unwrap();
        *bytes = bytes.slice(..bytes.len() - 1);
    }
}

/// The state that the disk holds: the newest checkpoint and every entry above it.
fn replayed(disk: &Disk) -> PartitionState {
    let open = disk.recover();
    let mut state = partition(&open.state).unwrap().clone();
    open.entries.iter().for_each(|entry| drop(state.apply(entry).unwrap()));
    state
}

fn producers(node: &Node) -> Vec<ProducerEntry> {
    node.state().records().producers.values().cloned().collect()
}

/// What readers and the planner see, but for the new leader's term.
fn seen(node: &Node) -> (GroupStatus, PartitionView) {
    (node.status(), node.shard.view(GROUP).unwrap())
}

fn assert_as_before(before: &Node, after: &Node) {
    let ((old, old_view), (new, new_view)) = (seen(before), seen(after));
    assert!(new.ready && new.term > old.term, "R5: terms only rise");
    assert_eq!((new.truncated, new.cut_limit), (old.truncated, old.cut_limit), "R6");
    assert_eq!((new.log_start, new.tiered_end), (old.log_start, old.tiered_end));
    assert_eq!((new.high_watermark, new_view.log_end), (old.high_watermark, old_view.log_end));
    assert_eq!(new_view.local_start, old_view.local_start);
    assert_eq!((new.open, new.rolls, new.seals), (old.open, old.rolls, old.seals));
    assert_eq!((new.root, new.manifest_seq), (old.root, old.manifest_seq));
    assert_eq!(producers(after), producers(before));
}

#[test]
fn s3_a_cut_group_reopens_as_it_was() {
    let node = cut();
    let status = node.status();
    assert!(status.truncated.0 > LogIndex::ZERO && status.seals.len() == 1);
    assert_eq!((node.disk.snapshots.len(), node.shard.view(GROUP).unwrap().local_start), (2, Offset(5)));
    let (before, at) = (node.shard.state_hash(GROUP).unwrap(), node.state());
    assert_eq!((at.applied().0, at.hash()), before, "R9: checkpoint and tail are the state");
    let after = node.reopen();
    assert_as_before(&node, &after);
    assert_eq!(after.status().local_checkpoints, status.local_checkpoints);
    assert_as_before(&after, &after.reopen());
}

#[test]
fn r8_the_log_begins_right_behind_the_cut_and_its_term_is_known() {
    let node = cut();
    let (truncated, first) = (node.disk.truncated, node.disk.log[0].index);
    assert_eq!(first, truncated.0.next());
    assert_eq!(node.reopen().status().truncated, truncated);
}

#[test]
fn s4_the_older_checkpoint_serves_when_the_newest_is_damaged() {
    let mut node = cut();
    node.damage(1);
    let mut after = node.reopen();
    let (status, before) = (after.status(), node.status());
    assert_eq!((status.high_watermark, status.log_start), (before.high_watermark, before.log_start));
    assert_eq!(after.shard.view(GROUP).unwrap().local_start, Offset(5));
    assert_eq!(status.local_checkpoints, before.local_checkpoints[..1]);
    assert_eq!(status.cut_limit, before.truncated, "one checkpoint lets nothing more be cut");
    after.checkpoint();
    after.send_all([14]);
    assert!(after.status().local_checkpoints.len() == 2);
    after.act(Action::Roll { cause: RollCause::Pressure });
    let rolled = after.status().rolls.last().cloned().unwrap();
    after.seal(RollRange { base: rolled.base, end: rolled.end });
    after.checkpoint();
    assert!(after.status().cut_limit.0 > before.truncated.0, "two new ones do");
}

#[test]
fn s4_without_a_checkpoint_a_cut_group_stops_and_is_never_empty() {
    let mut node = cut();
    node.damage(0);
    node.damage(1);
    for entries in [node.disk.log.clone(), Vec::new()] {
        let mut disk = node.disk.clone();
        disk.log = entries;
        let after = node.kill(disk.recover());
        assert!(after.shard.status(GROUP).is_none());
        assert!(after.effects.iter().any(|effect| matches!(effect, Effect::Stopped { .. })));
    }
}

#[test]
fn b4_after_a_reopen_no_more_is_cut_than_before_it() {
    let mut node = Node::ready();
    let first = node.roll((9, 0, 0), 5);
    node.seal(first);
    node.send_all([5]);
    node.checkpoint();
    node.send_all([6]);
    node.checkpoint();
    let (limit, roll) = (node.status().cut_limit, node.status().seals[0].last_index);
    let mut after = node.reopen();
    let again = after.status().cut_limit;
    assert!(again.0 <= limit.0 && again.0 >= roll, "{roll} <= {} <= {}", again.0, limit.0);
    after.cut();
    assert_eq!((after.status().truncated, after.disk.log[0].index), (again, again.0.next()));
    assert_eq!(after.shard.view(GROUP).unwrap().local_start, Offset(0), "the file holds what the log lost");
    assert_as_before(&after, &after.reopen());
}

#[test]
fn w6_a_file_that_is_given_up_is_not_local_after_a_reopen() {
    let mut node = cut();
    node.act(Action::Unseal { base: Offset(5) });
    assert_eq!(node.status().seals.len(), 1, "its range is nowhere else");
    let second = RollRange { base: Offset(5), end: Offset(8) };
    node.tier(2, second);
    node.act(Action::Unseal { base: Offset(5) });
    assert!(matches!(node.job(), Job::Unseal { .. }));
    assert!(node.status().seals.is_empty() && node.disk.seals.is_empty());
    let after = node.reopen();
    assert_as_before(&node, &after);
    assert_eq!(after.shard.view(GROUP).unwrap().local_start, Offset(8));
}

#[test]
fn t28_t30_retries_after_a_reopen_are_answered_with_their_offsets() {
    for damaged in [false, true] {
        let mut node = cut();
        if damaged {
            node.damage(1);
        }
        // 9 is in both checkpoints, 10 and 11 in the newest, 12 and 13 in the log alone.
        let mut after = node.reopen();
        for sequence in 9..14 {
            let retry = after.send((9, 0, sequence), 1);
            let expected = Reply::Duplicate { base_offset: Offset(sequence as u64), log_start: Offset(0) };
            assert_eq!(after.reply(retry), Some(expected), "{damaged}");
        }
        let gap = after.send((9, 0, 20), 1);
        let refused = Refusal::OutOfOrderSequence { expected: 14, found: 20 };
        assert_eq!(after.reply(gap), Some(Reply::Refused(refused)));
        let next = after.send((9, 0, 14), 1);
        after.settle();
        assert!(matches!(after.reply(next), Some(Reply::Produced { base_offset: Offset(14), .. })));
    }
}

#[test]
fn t6_a_checkpoint_without_its_mark_does_not_count() {
    let mut node = Node::ready();
    node.send_all(0..3);
    node.checkpoint();
    node.send_all(3..5);
    node.act(Action::CheckpointLocal);
    let Job::CheckpointLocal { index, term, captured, .. } = node.job() else { panic!() };
    let encoded = captured.encode(Codec::Zstd);
    let file = format!("{index:020}");
    node.disk.files.insert(file.clone(), encoded.bytes);
    let checkpoint = LocalCheckpoint { index, term, file, sha256: encoded.sha256 };
    node.step(Input::JobDone { group: GROUP, outcome: JobOutcome::CheckpointWritten(checkpoint) });
    assert_eq!(node.status().local_checkpoints.len(), 1, "its mark is not fsynced");
    let after = node.reopen();
    assert_eq!((after.status().local_checkpoints.len(), after.status().high_watermark), (1, Offset(5)));
    node.settle();
    assert_eq!(node.status().local_checkpoints.len(), 2);
}
