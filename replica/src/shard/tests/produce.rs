//! Offsets, retries and answers (RAFT.md 4).

use super::*;
use crate::limits::{INFLIGHT_BYTES_MAX, PENDING_ENTRIES_MAX, QUEUED_BYTES_MAX};

#[test]
fn golden_trace_of_a_produce() {
    let mut node = Node::open(GroupState::New);
    node.settle();
    let opening = node.trace();
    assert!(opening.iter().any(|line| line == "persist 1 [1/1@0] sync=true"), "{opening:#?}");
    assert_eq!(opening.last().unwrap(), "publish hw=0 ready=true start=0");
    node.send((9, 0, 0), 3);
    let before = node.trace();
    assert_eq!(before, ["persist 3 [2/1@0] sync=true"]);
    node.step(Input::Persisted { group: GROUP, ready: 3 });
    let after = node.trace();
    assert_eq!(
        after.iter().filter(|line| !line.starts_with("persist")).collect::<Vec<_>>(),
        [
            "tail 0..3 term 1",
            "reply 1 Produced { base_offset: Offset(0), append_time_ms: -1, log_start: Offset(0) }",
            "publish hw=3 ready=true start=0",
        ]
    );
}

#[test]
fn nothing_is_assigned_before_the_leaders_own_no_op_is_applied() {
    let mut node = Node::open(GroupState::New);
    let ticket = node.send((9, 0, 0), 1);
    assert_eq!(node.reply(ticket), None);
    assert!(
        !node
            .effects
            .iter()
            .any(|effect| matches!(effect, Effect::Persist { entries, .. } if entries.len() > 1))
    );
    node.settle();
    assert!(matches!(node.reply(ticket), Some(Reply::Produced { base_offset: Offset(0), .. })));
}

#[test]
fn h7_five_batches_in_flight_keep_their_order() {
    let mut node = Node::ready();
    let tickets: Vec<_> = (0..5).map(|n| node.send((9, 0, n * 2), 2)).collect();
    assert!(tickets.iter().all(|ticket| node.reply(*ticket).is_none()));
    node.settle();
    for (n, ticket) in tickets.into_iter().enumerate() {
        let expected = Offset(n as u64 * 2);
        assert!(
            matches!(node.reply(ticket), Some(Reply::Produced { base_offset, .. }) if base_offset == expected)
        );
    }
    let bases: Vec<_> = node.disk.log.iter().map(|entry| entry.offset.0).collect();
    assert_eq!(bases, [0, 0, 2, 4, 6, 8]);
}

#[test]
fn what_goes_beyond_the_bytes_under_way_waits_its_turn_in_order() {
    let mut node = Node::ready();
    let value = vec![7; 4 << 20];
    let large = sample((-1, -1, -1), 1, &value);
    let fits = |bytes: u64| usize::try_from(bytes / large.len() as u64).unwrap();
    let (under_way, waiting) = (fits(INFLIGHT_BYTES_MAX), fits(QUEUED_BYTES_MAX));
    let tickets: Vec<_> = (0..under_way + waiting).map(|_| node.send_batch(large.clone())).collect();
    // Room for it alone is no room: it does not overtake.
    let small = node.send((-1, -1, -1), 1);
    assert!(tickets.iter().chain([&small]).all(|ticket| node.reply(*ticket).is_none()));
    let one_more = node.send_batch(large);
    assert_eq!(node.reply(one_more), Some(Reply::Refused(Refusal::Throttled)));
    let under_way_bytes =
        |node: &Node| node.disk.log.iter().map(|entry| entry.data.len() as u64).sum::<u64>();
    assert!(under_way_bytes(&node) < INFLIGHT_BYTES_MAX + (1 << 20), "no more than that is proposed");
    node.settle();
    for (at, ticket) in tickets.into_iter().chain([small]).enumerate() {
        let expected = Offset(at as u64);
        let reply = node.reply(ticket);
        assert!(
            matches!(reply, Some(Reply::Produced { base_offset, .. }) if base_offset == expected),
            "{reply:?}"
        );
    }
    let again = node.send((-1, -1, -1), 1);
    node.settle();
    assert!(matches!(node.reply(again), Some(Reply::Produced { .. })), "nothing waits any more");
}

#[test]
fn h3_what_follows_a_refused_first_batch_is_not_taken_for_the_first() {
    let mut node = Node::ready();
    for _ in 0..PENDING_ENTRIES_MAX {
        node.send((-1, -1, -1), 1);
    }
    let first = node.send((9, 0, 0), 2);
    assert_eq!(node.reply(first), Some(Reply::Refused(Refusal::Throttled)));
    node.settle();
    let second = node.send((9, 0, 2), 2);
    let gap = Refusal::OutOfOrderSequence { expected: 0, found: 2 };
    assert_eq!(node.reply(second), Some(Reply::Refused(gap)));
    let retries = [node.send((9, 0, 0), 2), node.send((9, 0, 2), 2)];
    node.settle();
    for ticket in retries {
        assert!(matches!(node.reply(ticket), Some(Reply::Produced { .. })));
    }
}

#[test]
fn h3_what_follows_a_first_batch_that_was_refused_before_it_came_here_waits_for_it() {
    let mut node = Node::ready();
    let meta = BatchHeader::parse(&sample((9, 0, 0), 2, b"some records")).unwrap().meta;
    node.step(Input::Missed { group: GROUP, meta });
    let second = node.send((9, 0, 2), 2);
    let gap = Refusal::OutOfOrderSequence { expected: 0, found: 2 };
    assert_eq!(node.reply(second), Some(Reply::Refused(gap)));
    // The client gave up, and begins again.
    let anew = node.send((9, 1, 0), 1);
    node.settle();
    assert!(matches!(node.reply(anew), Some(Reply::Produced { .. })));
}

/// It is with the leader before, which hangs, or was turned away before this replica was ready.
#[test]
fn h7_what_follows_a_first_batch_that_never_came_here_waits_for_it() {
    let mut node = Node::ready();
    let second = node.send((9, 0, 2), 2);
    assert_eq!(node.reply(second), Some(Reply::Refused(Refusal::Unheard)));
    let third = node.send((9, 0, 4), 1);
    let gap = Refusal::OutOfOrderSequence { expected: 2, found: 4 };
    assert_eq!(node.reply(third), Some(Reply::Refused(gap)));
    let all = [node.send((9, 0, 0), 2), node.send((9, 0, 2), 2), node.send((9, 0, 4), 1)];
    node.settle();
    let bases = all.map(|ticket| match node.reply(ticket) {
        Some(Reply::Produced { base_offset, .. }) => base_offset.0,
        other => panic!("{other:?}"),
    });
    assert_eq!(bases, [0, 2, 4]);
}

#[test]
fn a_producer_that_was_forgotten_goes_on_where_it_was_when_it_comes_again() {
    let mut node = Node::ready();
    let second = node.send((8, 0, 78), 1);
    // What it sent before is no beginning either.
    let first = node.send((8, 0, 77), 1);
    for ticket in [second, first] {
        assert_eq!(node.reply(ticket), Some(Reply::Refused(Refusal::Unheard)));
    }
    let retries = [node.send((8, 0, 77), 1), node.send((8, 0, 78), 1)];
    node.settle();
    for ticket in retries {
        assert!(matches!(node.reply(ticket), Some(Reply::Produced { .. })));
    }
}

#[test]
fn h2_a_retry_of_a_pending_batch_waits_for_it() {
    let mut node = Node::ready();
    let first = node.send((9, 0, 0), 1);
    let retry = node.send((9, 0, 0), 1);
    assert_eq!((node.reply(first), node.reply(retry)), (None, None));
    node.settle();
    assert!(matches!(node.reply(first), Some(Reply::Produced { base_offset: Offset(0), .. })));
    assert!(matches!(node.reply(retry), Some(Reply::Duplicate { base_offset: Offset(0), .. })));
    assert_eq!(node.status().high_watermark, Offset(1));
}

#[test]
fn retries_that_wait_for_the_same_batch_count_among_what_a_group_holds() {
    let mut node = Node::ready();
    let tickets: Vec<_> = (0..PENDING_ENTRIES_MAX).map(|_| node.send((9, 0, 0), 1)).collect();
    let one_more = node.send((9, 0, 0), 1);
    assert_eq!(node.reply(one_more), Some(Reply::Refused(Refusal::Throttled)));
    node.settle();
    let answered = |effect: &&Effect| matches!(effect, Effect::Reply { reply: Reply::Duplicate { .. }, .. });
    assert_eq!(node.effects.iter().filter(answered).count(), PENDING_ENTRIES_MAX - 1);
    assert!(matches!(node.reply(tickets[0]), Some(Reply::Produced { .. })));
    let room = node.send((9, 0, 0), 1);
    assert!(matches!(node.reply(room), Some(Reply::Duplicate { .. })));
}

#[test]
fn t28_a_batch_retried_after_a_kill_is_stored_once() {
    let mut node = Node::ready();
    for n in 0..5 {
        node.send((9, 0, n), 1);
    }
    node.settle();
    let mut node = node.restart(GroupState::New, LogIndex::ZERO);
    for n in 0..5 {
        let retry = node.send((9, 0, n), 1);
        assert_eq!(
            node.reply(retry),
            Some(Reply::Duplicate { base_offset: Offset(n as u64), log_start: Offset(0) })
        );
    }
}

#[test]
fn t30_the_producer_table_survives_a_checkpoint() {
    let mut node = Node::ready();
    node.send((9, 0, 0), 4);
    node.settle();
    let mut node = node.restart_from_checkpoint();
    let retry = node.send((9, 0, 0), 4);
    assert!(matches!(node.reply(retry), Some(Reply::Duplicate { base_offset: Offset(0), .. })));
    let gap = node.send((9, 0, 9), 1);
    assert_eq!(node.reply(gap), Some(Reply::Refused(Refusal::OutOfOrderSequence { expected: 4, found: 9 })));
}

#[test]
fn a_failed_write_fails_every_waiter_and_acknowledges_nothing_more() {
    let mut node = Node::ready();
    let waiting = node.send((9, 0, 0), 1);
    let persisted = node.effects.iter().find_map(|effect| match effect {
        Effect::Persist { ready, .. } => Some(*ready),
        _ => None,
    });
    node.step(Input::PersistFailed);
    assert_eq!(node.reply(waiting), Some(Reply::Refused(Refusal::StorageError)));
    node.take_effects();
    node.step(Input::Persisted { group: GROUP, ready: persisted.unwrap() });
    let late = node.send((9, 0, 1), 1);
    assert_eq!(node.trace(), ["reply 2 Refused(StorageError)"]);
    let _ = late;
}

#[test]
fn log_append_time_is_written_once_by_the_leader() {
    let mut node = Node::ready();
    node.wall_ms = 77_000;
    let ticket = node.send_stamped((-1, -1, -1), 2, Timestamps::Append);
    node.settle();
    assert!(matches!(node.reply(ticket), Some(Reply::Produced { append_time_ms: 77_000, .. })));
    let batch = node.disk.log.last().unwrap().data.slice(20..);
    assert_eq!(BatchHeader::parse(&batch).unwrap().meta.max_timestamp, 77_000);
}
