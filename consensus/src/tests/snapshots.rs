//! Followers that the log no longer reaches.

use bytes::Bytes;
use varve_common::{GroupId, LogIndex};

use super::{
    cluster::replica,
    nodes::{Nodes, node},
};
use crate::{Change, Group, GroupConfig, InstallError, Membership, Persist, Role, SnapshotOffer};

const ONE: GroupId = GroupId(1);

/// Three nodes of which one was away while the others cut their logs; gives the leader and the one that was away.
fn behind() -> (Nodes, u32, u32) {
    let mut all = Nodes::new(3, 1, GroupConfig { seed: 3, ..GroupConfig::default() });
    all.elect();
    let leader = all.leader(ONE).unwrap();
    let away = if leader == 1 { 2 } else { 1 };
    all.stop(away);
    for n in 0..50 {
        all.propose(ONE, Bytes::from(format!("{n}")));
        all.settle();
    }
    all.ticks(4);
    for id in (1..=3).filter(|id| *id != away) {
        let host = all.nodes.get_mut(&node(id)).unwrap();
        let cut = LogIndex(40);
        let term = host.groups.update(ONE, |raft| raft.compact(cut)).unwrap();
        let disk = host.disks.get_mut(&ONE).unwrap();
        disk.entries.retain(|entry| entry.index > cut);
        disk.truncated = (cut, term);
    }
    all.start(away);
    all.ticks(20);
    (all, leader, away)
}

fn offer(all: &Nodes, leader: u32, at: u64) -> SnapshotOffer {
    let raft = all.nodes[&node(leader)].groups.get(ONE).unwrap();
    SnapshotOffer {
        index: LogIndex(at),
        term: raft.term_at(LogIndex(at)).unwrap(),
        membership: raft.membership().clone(),
        pointer: Bytes::from_static(b"key and digest"),
    }
}

/// Whether the leader takes an offer.
fn takes(all: &mut Nodes, leader: u32, offer: &SnapshotOffer) -> bool {
    let host = all.nodes.get_mut(&node(leader)).unwrap();
    host.groups.update(ONE, |raft| raft.offer_snapshot(offer)).unwrap()
}

/// The driver's part: the checkpoint is durable, raft jumps, the log is replaced.
fn install(all: &mut Nodes, leader: u32, away: u32) -> Result<(), InstallError> {
    let offer = all.nodes[&node(away)].pointer.clone().unwrap().offer;
    let state = all.nodes[&node(leader)].applied[&ONE][..offer.index.0 as usize].to_vec();
    let host = all.nodes.get_mut(&node(away)).unwrap();
    host.groups.update(ONE, |raft| raft.install(offer.index, offer.term, &offer.membership)).unwrap()?;
    host.applied.insert(ONE, state);
    all.drain(node(away));
    Ok(())
}

#[test]
fn a_follower_behind_the_log_is_wanted_once_and_sent_to_the_offer() {
    let (mut all, leader, away) = behind();
    let wanted: Vec<_> = all.nodes[&node(leader)].wanted.iter().map(|wanted| wanted.replica).collect();
    assert_eq!(wanted, [replica(away)], "told once");
    assert!(all.nodes[&node(away)].pointer.is_none());
    let offer = offer(&all, leader, 45);
    assert!(takes(&mut all, leader, &offer));
    all.ticks(6);
    assert_eq!(all.nodes[&node(away)].pointer.as_ref().map(|pointer| &pointer.offer), Some(&offer));
    assert_eq!(all.group(away, ONE).last_index(), LogIndex(1), "raft saw nothing of it yet");
    install(&mut all, leader, away).unwrap();
    all.ticks(6);
    assert_eq!(all.commands(away, ONE), all.commands(leader, ONE));
    assert_eq!(all.group(away, ONE).truncated().start, LogIndex(45));
    all.ticks(60);
    assert_eq!(all.resting(), 3);
}

/// The driver forgets with every change of leadership: it would wait for a word that was said in an earlier term.
#[test]
fn who_leads_again_tells_again_that_a_snapshot_is_wanted() {
    let (mut all, leader, away) = behind();
    let other = (1..=3).find(|id| ![leader, away].contains(id)).unwrap();
    for (from, to) in [(leader, other), (other, leader)] {
        let host = all.nodes.get_mut(&node(from)).unwrap();
        host.groups.update(ONE, |raft| raft.transfer(replica(to))).unwrap();
        all.ticks(20);
        assert_eq!(all.leader(ONE), Some(to));
    }
    assert_eq!(all.nodes[&node(leader)].wanted.len(), 2, "once in each term");
    let offer = offer(&all, leader, 45);
    assert!(takes(&mut all, leader, &offer));
    all.ticks(6);
    assert!(all.nodes[&node(away)].pointer.is_some());
}

/// TIERING.md 11a: who joined behind S is not among the members as of S.
#[test]
fn a_checkpoint_of_a_time_before_it_joined_makes_a_replica_a_learner_until_the_log_says_more() {
    let (mut all, leader, away) = behind();
    let offer = offer(&all, leader, 45);
    assert!(takes(&mut all, leader, &offer));
    all.ticks(6);
    let mut before = offer.membership.clone();
    before.voters.retain(|voter| *voter != replica(away));
    let host = all.nodes.get_mut(&node(away)).unwrap();
    host.groups.update(ONE, |raft| raft.install(offer.index, offer.term, &before)).unwrap().unwrap();
    let state = all.nodes[&node(leader)].applied[&ONE][..45].to_vec();
    all.nodes.get_mut(&node(away)).unwrap().applied.insert(ONE, state);
    all.drain(node(away));
    all.ticks(6);
    assert_eq!(all.group(away, ONE).membership().learners, [replica(away)]);
    assert_eq!(all.commands(away, ONE), all.commands(leader, ONE));
}

/// Found by a simulator's seed: raft ended the process.
#[test]
fn who_has_not_made_its_jump_durable_does_not_campaign() {
    let (mut all, leader, away) = behind();
    let offer = offer(&all, leader, 45);
    assert!(takes(&mut all, leader, &offer));
    all.ticks(6);
    let host = all.nodes.get_mut(&node(away)).unwrap();
    let jumps = |raft: &mut Group| {
        raft.install(offer.index, offer.term, &offer.membership).unwrap();
        let ready = raft.ready().expect("it has to be written");
        (0..200).for_each(|_| raft.tick());
        raft.campaign();
        assert_eq!(raft.role(), Role::Follower, "its disk has not said so yet");
        raft.persisted(ready.number);
        (0..200).for_each(|_| raft.tick());
        assert_ne!(raft.role(), Role::Follower, "nobody leads it for so long");
    };
    host.groups.update(ONE, jumps).unwrap();
}

#[test]
fn t5_what_an_installed_snapshot_replaces_is_gone_also_after_a_restart() {
    let (mut all, leader, away) = behind();
    let offer = offer(&all, leader, 45);
    assert!(takes(&mut all, leader, &offer));
    all.ticks(6);
    install(&mut all, leader, away).unwrap();
    let disk = &all.nodes[&node(away)].disks[&ONE];
    assert_eq!((disk.truncated, disk.hard_state.commit >= LogIndex(45)), ((offer.index, offer.term), true));
    assert!(disk.entries.iter().all(|entry| entry.index > offer.index));
    all.stop(away);
    all.start(away);
    all.ticks(20);
    assert_eq!(all.commands(away, ONE), all.commands(leader, ONE));
}

#[test]
fn a_snapshot_that_cannot_be_had_is_sent_again() {
    let (mut all, leader, away) = behind();
    let first = offer(&all, leader, 42);
    assert!(takes(&mut all, leader, &first));
    all.ticks(6);
    let host = all.nodes.get_mut(&node(away)).unwrap();
    assert!(host.pointer.take().is_some());
    host.groups.update(ONE, |raft| {
        raft.refuse_snapshot();
        assert_eq!(raft.install(first.index, first.term, &first.membership), Err(InstallError::NotOffered));
    });
    let second = offer(&all, leader, 47);
    all.nodes.get_mut(&node(leader)).unwrap().groups.update(ONE, |raft| {
        assert!(raft.offer_snapshot(&second));
        raft.report_snapshot_failure(replica(away));
    });
    all.ticks(6);
    assert_eq!(
        all.nodes[&node(away)].pointer.as_ref().map(|pointer| pointer.offer.index),
        Some(second.index)
    );
    install(&mut all, leader, away).unwrap();
    all.ticks(6);
    assert_eq!(all.commands(away, ONE), all.commands(leader, ONE));
}

#[test]
fn a_leader_waits_for_an_installation_only_so_long() {
    let (mut all, leader, away) = behind();
    let offer = offer(&all, leader, 42);
    assert!(takes(&mut all, leader, &offer));
    all.ticks(6);
    assert!(all.nodes.get_mut(&node(away)).unwrap().pointer.take().is_some());
    // The receiver forgets: it starts anew.
    all.stop(away);
    all.start(away);
    all.ticks(20);
    assert!(all.nodes[&node(away)].pointer.is_none());
    all.ticks(110);
    assert!(all.nodes[&node(away)].pointer.is_some());
}

#[test]
fn r8_an_offer_must_fit_the_log_and_name_the_receiver() {
    let (mut all, leader, away) = behind();
    let good = offer(&all, leader, 45);
    let others = Membership { voters: vec![replica(leader)], ..Membership::default() };
    let refused = [
        SnapshotOffer { index: LogIndex(39), ..good.clone() },
        SnapshotOffer { index: LogIndex(1000), ..good.clone() },
        SnapshotOffer { term: good.term.next(), ..good.clone() },
    ];
    let host = all.nodes.get_mut(&node(leader)).unwrap();
    for offer in &refused {
        assert_eq!(host.groups.update(ONE, |raft| raft.offer_snapshot(offer)), Some(false));
    }
    host.wanted.clear();
    let lacks = SnapshotOffer { membership: others, ..good };
    assert_eq!(host.groups.update(ONE, |raft| raft.offer_snapshot(&lacks)), Some(true));
    all.ticks(6);
    assert!(all.nodes[&node(away)].pointer.is_none(), "it would drop it, and the leader would wait");
    assert_eq!(all.nodes[&node(leader)].wanted.len(), 1);
}

#[test]
fn an_installed_snapshot_is_one_write_with_the_hard_state() {
    let (mut all, leader, away) = behind();
    let offer = offer(&all, leader, 45);
    assert!(takes(&mut all, leader, &offer));
    all.ticks(6);
    let host = all.nodes.get_mut(&node(away)).unwrap();
    host.groups
        .update(ONE, |raft| raft.install(offer.index, offer.term, &offer.membership))
        .unwrap()
        .unwrap();
    let (_, ready) = host.groups.next_ready().unwrap();
    let Some(Persist { hard_state: Some(hard_state), installed: Some(installed), must_sync: true, .. }) =
        ready.persist
    else {
        panic!("{:?}", ready.persist)
    };
    assert_eq!((hard_state.commit, installed), (offer.index, offer));
    assert!(ready.messages.is_empty(), "the answer waits for the disk");
}

#[test]
fn t3_the_term_does_not_go_back_with_a_snapshot_of_an_older_one() {
    let (mut all, leader, away) = behind();
    let old = offer(&all, leader, 45);
    let third = (1..=3).find(|id| *id != leader && *id != away).unwrap();
    all.nodes.get_mut(&node(leader)).unwrap().groups.update(ONE, |raft| raft.transfer(replica(third)));
    all.drain(node(leader));
    all.ticks(6);
    assert_eq!(all.leader(ONE), Some(third));
    let term = all.group(away, ONE).term();
    assert!(term > old.term);
    all.nodes.get_mut(&node(third)).unwrap().groups.update(ONE, |raft| raft.offer_snapshot(&old));
    all.ticks(6);
    install(&mut all, third, away).unwrap();
    all.ticks(6);
    assert_eq!(all.group(away, ONE).term(), term);
    assert_eq!(all.nodes[&node(away)].disks[&ONE].hard_state.term, term);
    assert_eq!(all.commands(away, ONE), all.commands(third, ONE));
}

#[test]
fn t4_a_membership_that_never_was_committed_goes_with_the_log_that_held_it() {
    let mut all = Nodes::new(3, 1, GroupConfig { seed: 3, ..GroupConfig::default() });
    all.elect();
    let away = all.leader(ONE).unwrap();
    // The leader appends a change that nobody else sees, and dies.
    all.cut = (1..=3).map(|id| (node(away), node(id))).collect();
    let host = all.nodes.get_mut(&node(away)).unwrap();
    host.groups.update(ONE, |raft| raft.propose_change(Change::AddLearner(replica(9))).unwrap());
    all.drain(node(away));
    assert_eq!(all.nodes[&node(away)].disks[&ONE].last_index(), all.group(away, ONE).last_index());
    all.stop(away);
    all.cut.clear();
    let leader = {
        all.elect();
        all.leader(ONE).unwrap()
    };
    for n in 0..50 {
        all.propose(ONE, Bytes::from(format!("{n}")));
        all.settle();
    }
    all.ticks(4);
    for id in (1..=3).filter(|id| *id != away) {
        let host = all.nodes.get_mut(&node(id)).unwrap();
        let term = host.groups.update(ONE, |raft| raft.compact(LogIndex(40))).unwrap();
        let disk = host.disks.get_mut(&ONE).unwrap();
        disk.entries.retain(|entry| entry.index > LogIndex(40));
        disk.truncated = (LogIndex(40), term);
    }
    let offer = offer(&all, leader, 45);
    assert!(takes(&mut all, leader, &offer));
    all.start(away);
    all.ticks(20);
    install(&mut all, leader, away).unwrap();
    all.ticks(6);
    assert_eq!(all.group(away, ONE).membership(), &offer.membership);
    assert_eq!(all.commands(away, ONE), all.commands(leader, ONE));
}
