//! What groups do, one behaviour at a time.

use bytes::Bytes;
use varve_common::{LogIndex, ReplicaId, Term};

use super::cluster::{Cluster, Disk, replica};
use crate::{
    Change, Entry, EntryKind, Group, GroupConfig, HardState, Membership, MultiRaft, OpenError, ProposeError,
    Recovered, Role,
};

fn single() -> Group {
    Group::open(Recovered::new(replica(1), vec![replica(1)].into()), GroupConfig::default()).unwrap()
}

/// Writes and applies everything; gives what was committed.
fn run_alone(group: &mut Group, disk: &mut Disk) -> Vec<Entry> {
    let mut committed = Vec::new();
    while let Some(ready) = group.ready() {
        if let Some(persist) = &ready.persist {
            disk.write(persist);
            group.persisted(ready.number);
        }
        if let Some(last) = ready.committed.last() {
            group.applied(last.index);
        }
        committed.extend(ready.committed);
    }
    committed
}

#[test]
fn a_sole_voter_leads_at_once_and_then_needs_no_ticks() {
    let (mut group, mut disk) = (single(), Disk::default());
    assert_eq!((group.role(), group.term()), (Role::Leader, Term(1)));
    let committed = run_alone(&mut group, &mut disk);
    assert_eq!((committed.len(), committed[0].kind), (1, EntryKind::Empty));
    assert!(group.is_settled());
    assert!(!group.wants_tick());
    assert!(!group.has_ready());
}

#[test]
fn t1_nothing_is_proposed_before_the_leaders_own_entry_is_applied() {
    let mut group = single();
    assert_eq!(group.propose(Bytes::from_static(b"x")), Err(ProposeError::Unsettled));
    let ready = group.ready().unwrap();
    group.persisted(ready.number);
    let ready = group.ready().unwrap();
    assert_eq!(ready.committed.len(), 1);
    assert_eq!(group.propose(Bytes::from_static(b"x")), Err(ProposeError::Unsettled));
    group.applied(LogIndex(1));
    assert_eq!(group.propose(Bytes::from_static(b"x")), Ok(LogIndex(2)));
}

#[test]
fn readies_are_pipelined_and_commit_in_order_as_they_become_durable() {
    let (mut group, mut disk) = (single(), Disk::default());
    run_alone(&mut group, &mut disk);
    let mut numbers = Vec::new();
    for index in 2..=6 {
        assert_eq!(group.propose(Bytes::from(format!("{index}"))), Ok(LogIndex(index)));
        let ready = group.ready().unwrap();
        assert_eq!(ready.persist.unwrap().entries.len(), 1);
        assert!(ready.committed.is_empty());
        numbers.push(ready.number);
    }
    assert_eq!(group.readies_in_flight(), 5);
    group.persisted(numbers[2]);
    let committed: Vec<_> = group.ready().unwrap().committed.iter().map(|entry| entry.index.0).collect();
    assert_eq!(committed, [2, 3, 4]);
    group.persisted(numbers[4]);
    let committed: Vec<_> = group.ready().unwrap().committed.iter().map(|entry| entry.index.0).collect();
    assert_eq!(committed, [5, 6]);
}

#[test]
fn a_restarted_sole_voter_commits_its_tail_only_behind_its_own_entry() {
    let (mut group, mut disk) = (single(), Disk::default());
    run_alone(&mut group, &mut disk);
    group.propose(Bytes::from_static(b"durable, unacknowledged")).unwrap();
    let ready = group.ready().unwrap();
    disk.write(&ready.persist.unwrap());
    drop(group);
    let recovered = disk.recovered(replica(1), vec![replica(1)].into(), LogIndex(1));
    let mut group = Group::open(recovered, GroupConfig::default()).unwrap();
    assert_eq!((group.term(), group.commit_index(), group.last_index()), (Term(2), LogIndex(1), LogIndex(3)));
    assert!(group.ready().unwrap().committed.is_empty(), "not before its own entry is durable");
    let mut group = reopen(&disk);
    let committed = run_alone(&mut group, &mut disk);
    assert_eq!(
        committed.iter().map(|entry| (entry.index.0, entry.kind)).collect::<Vec<_>>(),
        [(2, EntryKind::Normal), (3, EntryKind::Empty)]
    );
}

fn reopen(disk: &Disk) -> Group {
    let recovered = disk.recovered(replica(1), vec![replica(1)].into(), LogIndex(1));
    Group::open(recovered, GroupConfig::default()).unwrap()
}

#[test]
fn a_sole_voter_restarts_from_every_point_of_its_log() {
    let (mut group, mut disk) = (single(), Disk::default());
    let mut snapshots = Vec::new();
    run_alone(&mut group, &mut disk);
    for index in 0..20 {
        group.propose(Bytes::from(format!("{index}"))).unwrap();
        while let Some(ready) = group.ready() {
            if let Some(persist) = &ready.persist {
                disk.write(persist);
                snapshots.push(disk.clone());
                group.persisted(ready.number);
            }
            if let Some(entry) = ready.committed.last() {
                group.applied(entry.index);
            }
        }
    }
    for disk in snapshots {
        for applied in 0..=disk.hard_state.commit.0 {
            let recovered = disk.recovered(replica(1), vec![replica(1)].into(), LogIndex(applied));
            let (before, mut disk) = (disk.last_index(), disk.clone());
            let mut group = Group::open(recovered, GroupConfig::default()).unwrap();
            let committed = run_alone(&mut group, &mut disk);
            assert_eq!(committed.len() as u64, before.0 + 1 - applied);
            assert!(group.is_settled());
        }
    }
}

#[test]
fn open_refuses_what_raft_would_die_of() {
    let (mut group, mut disk) = (single(), Disk::default());
    run_alone(&mut group, &mut disk);
    for _ in 0..3 {
        group.propose(Bytes::from_static(b"x")).unwrap();
        run_alone(&mut group, &mut disk);
    }
    let good = || disk.recovered(replica(1), vec![replica(1)].into(), LogIndex(2));
    let refused = |change: &dyn Fn(&mut Recovered)| {
        let mut recovered = good();
        change(&mut recovered);
        Group::open(recovered, GroupConfig::default()).map(|_| ()).unwrap_err()
    };
    assert!(Group::open(good(), GroupConfig::default()).is_ok());
    let (commit, last) = (LogIndex(4), LogIndex(3));
    assert_eq!(refused(&|r| drop(r.entries.pop())), OpenError::CommitBeyondLog { commit, last });
    let beyond = OpenError::AppliedBeyondCommit { applied: LogIndex(2), commit: LogIndex(1) };
    assert_eq!(refused(&|r| r.hard_state.commit = LogIndex(1)), beyond);
    let lost = OpenError::TermBeyondHardState { last: Term(1), hard_state: Term(0) };
    assert_eq!(refused(&|r| r.hard_state.term = Term(0)), lost);
    assert!(matches!(refused(&|r| drop(r.entries.remove(0))), OpenError::Gap { .. }));
    assert!(matches!(refused(&|r| r.runs.clear()), OpenError::Gap { .. }));
    assert!(matches!(
        refused(&|r| r.truncated = (LogIndex(3), Term(1))),
        OpenError::AppliedBelowTruncated { .. }
    ));
    assert!(matches!(refused(&|r| r.entries[1].term = Term(0)), OpenError::TermBackwards { .. }));
    assert_eq!(refused(&|r| r.membership = Membership::default()), OpenError::MembershipInvalid);
    assert_eq!(refused(&|r| r.hard_state = HardState { commit: LogIndex(9), ..r.hard_state }), {
        OpenError::CommitBeyondLog { commit: LogIndex(9), last: LogIndex(4) }
    });
}

#[test]
fn proposals_are_bounded_in_size_and_in_what_waits() {
    let config = GroupConfig { entry_bytes_max: 10, uncommitted_bytes_max: 15, ..GroupConfig::default() };
    let mut group = Group::open(Recovered::new(replica(1), vec![replica(1)].into()), config).unwrap();
    run_alone(&mut group, &mut Disk::default());
    let eleven = Bytes::from_static(b"12345678901");
    assert_eq!(group.propose(eleven.clone()), Err(ProposeError::TooLarge { bytes: 11, bytes_max: 10 }));
    assert_eq!(group.propose(eleven.slice(..10)), Ok(LogIndex(2)));
    assert_eq!(group.propose(eleven.slice(..10)), Err(ProposeError::Backlogged { uncommitted_bytes: 10 }));
    assert_eq!(group.propose(eleven.slice(..5)), Ok(LogIndex(3)));
}

#[test]
fn three_replicas_elect_replicate_and_change_leader() {
    let mut cluster = Cluster::new(3, 0, 1);
    let first = cluster.elect();
    for index in 0..50 {
        cluster.propose(first, &format!("{index}"));
    }
    cluster.settle();
    let other = replica(if first == replica(1) { 2 } else { 1 });
    let refused = cluster.group(other).propose(Bytes::from_static(b"x"));
    assert_eq!(refused, Err(ProposeError::NotLeader { leader: Some(first) }));
    cluster.crash(first, 0);
    let second = cluster.elect();
    assert_ne!(first, second);
    cluster.propose(second, "after");
    cluster.settle();
    cluster.restart(first, LogIndex(20));
    for _ in 0..10 {
        cluster.settle();
        cluster.tick(second);
    }
    let logs: Vec<_> = cluster.nodes.values().map(|node| node.applied.clone()).collect();
    assert!(logs.windows(2).all(|pair| pair[0] == pair[1]));
    assert_eq!(logs[0].iter().filter(|entry| entry.kind == EntryKind::Normal).count(), 51);
}

#[test]
fn leadership_is_handed_over_and_proposals_are_dropped_meanwhile() {
    let mut cluster = Cluster::new(3, 0, 1);
    let first = cluster.elect();
    let to = replica(if first == replica(1) { 2 } else { 1 });
    cluster.group(first).transfer(to);
    assert_eq!(cluster.group(first).propose(Bytes::from_static(b"x")), Err(ProposeError::DroppedByTransfer));
    cluster.drain(first);
    cluster.settle();
    assert_eq!(cluster.leader(), Some(to));
}

#[test]
fn t9_messages_wait_for_what_they_promise() {
    let mut cluster = Cluster::new(3, 0, 1);
    let leader = cluster.elect();
    cluster.propose(leader, "x");
    let appends = std::mem::take(&mut cluster.network);
    assert_eq!(appends.len(), 2, "a leader sends while it writes");
    appends.into_iter().for_each(|(from, frame)| cluster.deliver(from, frame));
    assert!(cluster.network.is_empty(), "followers answer only for what is durable");
    let followers: Vec<_> = cluster.nodes.keys().copied().filter(|&id| id != leader).collect();
    assert!(cluster.persist(followers[0]));
    assert_eq!(cluster.network.len(), 1);
}

#[test]
fn t9_a_sole_voter_tells_its_learner_nothing_before_its_term_is_durable() {
    let mut cluster = Cluster::new(1, 1, 1);
    assert_eq!(cluster.leader(), Some(replica(1)));
    assert!(cluster.network.is_empty());
    cluster.persist(replica(1));
    assert!(!cluster.network.is_empty());
    cluster.settle();
    assert_eq!(cluster.nodes[&replica(2)].disk.last_index(), LogIndex(1));
}

#[test]
fn a_lagging_follower_is_served_from_disk() {
    let mut cluster = Cluster::new(3, 0, 1);
    let leader = cluster.elect();
    let behind = replica(if leader == replica(1) { 2 } else { 1 });
    cluster.crash(behind, 0);
    for index in 0..50 {
        cluster.propose(leader, &format!("{index}"));
        cluster.settle();
    }
    let applied = cluster.group(leader).applied_index();
    cluster.group(leader).evict(applied);
    assert_eq!(cluster.group(leader).memory_bytes(), 0);
    cluster.restart(behind, LogIndex(0));
    for _ in 0..10 {
        cluster.tick(leader);
        cluster.settle();
    }
    assert_eq!(cluster.nodes[&behind].applied.len() as u64, applied.0);
}

#[test]
fn a_learner_seeded_at_the_truncation_point_catches_up_from_the_next_entry() {
    let mut cluster = Cluster::new(3, 0, 1);
    let leader = cluster.elect();
    for index in 0..30 {
        cluster.propose(leader, &format!("{index}"));
    }
    cluster.settle();
    let seed = LogIndex(20);
    cluster.compact(leader, seed);
    let state = cluster.nodes[&leader].applied[..20].to_vec();
    let learner = replica(4);
    cluster.group(leader).propose_change(Change::AddLearner(learner)).unwrap();
    cluster.drain(leader);
    cluster.settle();
    assert_eq!(cluster.group(leader).membership().learners, [learner]);
    let at = HardState { term: state[19].term, vote: None, commit: seed };
    let disk = Disk { hard_state: at, truncated: (seed, state[19].term), entries: Vec::new() };
    cluster.join(learner, disk, state);
    for _ in 0..10 {
        cluster.tick(leader);
        cluster.settle();
    }
    let applied = cluster.nodes[&leader].applied.clone();
    assert_eq!(cluster.nodes[&learner].applied, applied);
    assert_eq!(cluster.group(learner).membership().learners, [learner]);
    (0..100).for_each(|_| cluster.group(learner).tick());
    assert_eq!(cluster.group(learner).role(), Role::Follower, "R10");
}

#[test]
fn a_learner_takes_a_voters_place_in_one_joint_change_that_the_leader_leaves() {
    let mut cluster = Cluster::new(3, 1, 1);
    let leader = cluster.elect();
    let goes = replica(if leader == replica(3) { 2 } else { 3 });
    let swap = [Change::AddVoter(replica(4)), Change::Remove(goes)];
    cluster.group(leader).propose_changes(&swap, LogIndex(9)).unwrap();
    assert!(cluster.group(leader).has_pending_change());
    cluster.drain(leader);
    while !cluster.group(leader).membership().is_joint() {
        assert!(cluster.round());
    }
    // As long as those who are left decide, the newcomer is no disk that another may be lost for.
    assert_eq!(cluster.group(leader).in_sync(), [1, 2, 3].map(replica));
    // And whoever goes is not asked to lead.
    cluster.group(leader).transfer(goes);
    cluster.settle();
    for _ in 0..6 {
        cluster.tick(leader);
        cluster.settle();
    }
    assert!(cluster.group(leader).in_sync().contains(&replica(4)));
    let members = cluster.group(leader).membership().clone();
    assert!(!members.is_joint() && members.voters.contains(&replica(4)) && !members.holds(goes));
    assert!(!cluster.group(leader).has_pending_change());
    assert_eq!(cluster.group(leader).members_version(), LogIndex(9));
    let noted: Vec<bool> =
        cluster.group(leader).take_changes().iter().map(|(_, members)| members.is_joint()).collect();
    assert_eq!(noted, [true, false]);
    // Who was removed campaigns, and nobody minds.
    let term = cluster.group(leader).term();
    (0..30).for_each(|_| cluster.tick(goes));
    cluster.settle();
    assert_eq!((cluster.group(leader).term(), cluster.group(leader).role()), (term, Role::Leader));
}

#[test]
fn t11_two_truncations_in_quick_succession_leave_the_term_at_each_known() {
    let (mut group, mut disk) = (single(), Disk::default());
    run_alone(&mut group, &mut disk);
    for _ in 0..9 {
        group.propose(Bytes::from_static(b"x")).unwrap();
    }
    run_alone(&mut group, &mut disk);
    for index in [4, 4, 3, 9, 10] {
        assert_eq!(group.compact(LogIndex(index)), Term(1));
    }
    assert_eq!(group.truncated().start, LogIndex(10));
    assert_eq!((group.term_at(LogIndex(10)), group.term_at(LogIndex(9))), (Some(Term(1)), None));
    group.propose(Bytes::from_static(b"x")).unwrap();
    assert_eq!(run_alone(&mut group, &mut disk).len(), 1);
}

#[test]
fn groups_are_served_in_order_and_idle_ones_are_left_alone() {
    use varve_common::GroupId;
    let mut groups = MultiRaft::new();
    for id in [3, 1, 2] {
        groups.insert(GroupId(id), single());
    }
    let mut order = Vec::new();
    while let Some((id, ready)) = groups.next_ready() {
        order.push(id.0);
        groups.update(id, |group| {
            ready.persist.is_some().then(|| group.persisted(ready.number));
            if let Some(entry) = ready.committed.last() {
                group.applied(entry.index);
            }
        });
    }
    assert!(order.is_sorted() && order.len() >= 3, "{order:?}");
    assert_eq!((groups.ticking(), groups.len()), (0, 3));
    let ids: Vec<ReplicaId> = groups.ids().map(|id| groups.get(id).unwrap().replica()).collect();
    assert_eq!(ids, [replica(1); 3]);
}
