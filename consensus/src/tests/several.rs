//! Several nodes, one behaviour at a time: rest and waking, pulses, gossip, late ticks, reads, flow, preference.

use bytes::Bytes;
use raft::eraftpb::MessageType;
use varve_common::GroupId;

use super::{
    cluster::{Cluster, replica},
    nodes::{Nodes, node},
};
use crate::{Change, GroupConfig, ReadError, Role};

const ONE: GroupId = GroupId(1);

fn nodes(groups: u64) -> Nodes {
    Nodes::new(3, groups, GroupConfig { seed: 3, ..GroupConfig::default() })
}

#[test]
fn idle_groups_come_to_rest_by_agreement_and_an_idle_hour_has_no_election() {
    let mut all = nodes(40);
    all.elect();
    all.ticks(60);
    assert_eq!(all.resting(), 120, "every replica of every group rests");
    assert!(all.nodes.values().all(|host| host.groups.ticking() == 0));
    let terms = all.terms();
    all.crossed.clear();
    // An hour of ticks of 100 ms.
    all.ticks(36_000);
    assert_eq!(all.terms(), terms, "no election");
    assert_eq!(all.resting(), 120);
    for ((from, to), (pulses, others)) in &all.crossed {
        assert!(
            *pulses <= 5 * 3600 + 1 && *others == 0,
            "{from:?} to {to:?}: {pulses} pulses, {others} others"
        );
    }
}

#[test]
fn messages_between_idle_nodes_do_not_grow_with_the_groups() {
    let count = |groups| {
        let mut all = nodes(groups);
        all.elect();
        all.crossed.clear();
        all.ticks(100);
        all.crossed.values().map(|(pulses, others)| pulses + others).max().unwrap()
    };
    assert_eq!(count(1), count(200));
}

#[test]
fn a_dead_node_wakes_its_groups_on_all_followers_and_all_are_led_again() {
    let mut all = nodes(60);
    all.elect();
    all.ticks(60);
    let dead = all.leader(ONE).unwrap();
    let led = all.groups.iter().filter(|group| all.leader(**group) == Some(dead)).count();
    assert!(led > 5, "{led}");
    all.stop(dead);
    let ticks = all.elect();
    assert!(ticks <= 40, "{ticks} ticks until {led} groups were led again");
    all.ticks(60);
    // With a member missing nothing comes to rest for which it counts: agreement is of all.
    all.start(dead);
    all.ticks(100);
    assert_eq!(all.resting(), 180);
}

/// Nobody waits for an election time-out of ten ticks where somebody saw the process end: neither busy groups nor those at rest.
#[test]
fn what_a_node_led_is_led_again_within_a_few_ticks_of_its_process_s_end() {
    for rest in [0, 60] {
        let mut all = nodes(30);
        all.elect();
        all.ticks(rest);
        let dead = all.leader(ONE).unwrap();
        all.stop(dead);
        for host in all.nodes.values_mut().filter(|host| host.up) {
            host.groups.peer_gone(node(dead));
        }
        let ticks = all.elect();
        assert!(ticks <= 9, "{ticks} ticks, after {rest} of rest");
        // Whoever comes back is heard as if nothing had been said of it.
        all.start(dead);
        all.ticks(20);
        assert!(all.nodes.values().all(|host| host.groups.peers().unwrap().is_alive(node(dead))));
    }
}

/// A word that is wrong costs an election at most: the leader that lives leads on, or another is in a higher term.
#[test]
fn a_word_of_an_end_that_is_wrong_stops_nothing() {
    let mut all = nodes(5);
    all.elect();
    let alive = all.leader(ONE).unwrap();
    let deaf = (1..=3).find(|id| *id != alive).unwrap();
    all.nodes.get_mut(&node(deaf)).unwrap().groups.peer_gone(node(alive));
    let before = all.leader(ONE);
    all.ticks(30);
    assert_eq!(all.leader(ONE), before, "one that is wrong finds no quorum");
}

#[test]
fn a_node_that_starts_anew_wakes_the_groups_that_it_led() {
    let mut all = nodes(20);
    all.elect();
    all.ticks(60);
    let again = all.leader(ONE).unwrap();
    all.stop(again);
    all.start(again);
    let ticks = all.elect();
    assert!(ticks <= 40, "{ticks}");
}

#[test]
fn a_group_that_its_leader_lost_in_silence_is_woken_by_the_audit() {
    let mut all = nodes(100);
    all.elect();
    all.ticks(60);
    let leader = all.leader(ONE).unwrap();
    // The replica is gone, its word to the peers is lost with the link, and the node lives on.
    let others: Vec<u32> = (1..=3).filter(|id| *id != leader).collect();
    all.cut = others.iter().map(|id| (node(leader), node(*id))).collect();
    all.nodes.get_mut(&node(leader)).unwrap().groups.remove(ONE);
    all.tick();
    all.tick();
    all.cut.clear();
    all.ticks(60);
    assert!(all.leader(ONE).is_some_and(|now| now != leader));
}

#[test]
fn work_wakes_a_group_and_only_that_one() {
    let mut all = nodes(10);
    all.elect();
    all.ticks(60);
    all.propose(ONE, Bytes::from_static(b"x"));
    all.settle();
    assert_eq!(all.resting(), 27);
    for id in 1..=3 {
        all.ticks(2);
        assert_eq!(all.commands(id, ONE), ["x"]);
    }
    all.ticks(60);
    assert_eq!(all.resting(), 30);
}

#[test]
fn every_node_knows_every_leader_and_who_is_in_sync() {
    let mut all = nodes(50);
    all.elect();
    all.ticks(4);
    let everyone = [replica(1), replica(2), replica(3)];
    for group in all.groups.clone() {
        let leader = replica(all.leader(group).unwrap());
        for host in all.nodes.values() {
            let report = host.groups.leaders().unwrap().get(group).unwrap();
            assert_eq!((report.leader, report.in_sync.as_slice()), (leader, &everyone[..]));
        }
    }
    let dead = all.leader(ONE).unwrap();
    all.stop(dead);
    all.elect();
    all.ticks(4);
    for group in all.groups.clone() {
        let leader = replica(all.leader(group).unwrap());
        for host in all.nodes.values().filter(|host| host.up) {
            let report = host.groups.leaders().unwrap().get(group).unwrap();
            assert_eq!(report.leader, leader, "{group}");
            assert!(!report.in_sync.contains(&replica(dead)), "{group} {report:?}");
        }
    }
    // A node that was away hears all of it again.
    all.start(dead);
    all.ticks(20);
    for group in all.groups.clone() {
        let leader = replica(all.leader(group).unwrap());
        assert_eq!(all.nodes[&node(dead)].groups.leaders().unwrap().get(group).unwrap().leader, leader);
    }
}

#[test]
fn a_lost_report_is_told_again_and_an_old_one_changes_nothing() {
    let mut all = nodes(5);
    all.elect();
    all.ticks(4);
    let leader = all.leader(ONE).unwrap();
    let deaf = if leader == 3 { 2 } else { 3 };
    let before = all.nodes[&node(deaf)].groups.leaders().unwrap().get(ONE).unwrap().clone();
    all.cut = (1..=3).filter(|id| *id != deaf).map(|id| (node(id), node(deaf))).collect();
    let to = (1..=3).find(|id| *id != leader && *id != deaf).unwrap();
    all.nodes.get_mut(&node(leader)).unwrap().groups.update(ONE, |raft| raft.transfer(replica(to)));
    all.drain(node(leader));
    all.ticks(5);
    assert_eq!(all.leader(ONE), Some(to));
    assert_eq!(all.nodes[&node(deaf)].groups.leaders().unwrap().get(ONE), Some(&before));
    all.cut.clear();
    all.ticks(4);
    let after = all.nodes[&node(deaf)].groups.leaders().unwrap().get(ONE).unwrap();
    assert_eq!(after.leader, replica(to));
    assert!(after.term > before.term);
}

#[test]
fn a_late_process_does_not_campaign_against_a_leader_that_lives() {
    // How many of node 1's groups campaign after so many ticks in which it hears nobody, and then one that is so late.
    let campaigns = |silent: usize, late_by: usize| {
        let mut all = nodes(30);
        all.elect();
        let host = all.nodes.get_mut(&node(1)).unwrap();
        (0..silent).for_each(|_| host.groups.tick());
        host.groups.tick_late(late_by);
        let groups = host.groups.iter();
        groups.filter(|(_, raft)| matches!(raft.role(), Role::PreCandidate | Role::Candidate)).count()
    };
    let last = (0..40).find(|silent| campaigns(*silent, 0) > 0).unwrap();
    assert!(last > 3, "{last}");
    // One tick before the first time-out the process stops, and is told how long before it hears anybody.
    assert_eq!(campaigns(last, 25), 0);
}

#[test]
fn reads_share_a_round_and_are_confirmed_by_a_quorum() {
    let mut all = nodes(1);
    all.elect();
    all.propose(ONE, Bytes::from_static(b"x"));
    all.settle();
    let leader = all.leader(ONE).unwrap();
    all.crossed.clear();
    let host = all.nodes.get_mut(&node(leader)).unwrap();
    host.groups.update(ONE, |raft| (0..100).for_each(|ticket| raft.read(ticket).unwrap()));
    let last = host.groups.get(ONE).unwrap().last_index();
    all.drain(node(leader));
    all.settle();
    let reads = &all.nodes[&node(leader)].reads;
    assert_eq!(reads.len(), 100);
    assert!(reads.iter().all(|read| read.outcome == Ok(last)));
    let sent: usize =
        all.crossed.iter().filter(|((from, _), _)| from.get() == leader).map(|(_, n)| n.0 + n.1).sum();
    assert!(sent <= 6, "two rounds for a hundred reads: {sent}");
}

#[test]
fn t15_f3_a_leader_cut_off_confirms_no_read_and_says_so_in_time() {
    let mut all = nodes(1);
    all.elect();
    let old = all.leader(ONE).unwrap();
    let others: Vec<u32> = (1..=3).filter(|id| *id != old).collect();
    all.cut = others.iter().flat_map(|id| [(node(old), node(*id)), (node(*id), node(old))]).collect();
    let host = all.nodes.get_mut(&node(old)).unwrap();
    host.groups.update(ONE, |raft| raft.read(7).unwrap());
    all.drain(node(old));
    all.ticks(30);
    let reads = &all.nodes[&node(old)].reads;
    assert_eq!(reads.len(), 1);
    assert!(matches!(reads[0].outcome, Err(ReadError::TimedOut | ReadError::NotLeader { .. })));
    assert_ne!(all.group(old, ONE).role(), Role::Leader, "check-quorum");
    let refused = all.nodes.get_mut(&node(old)).unwrap().groups.update(ONE, |raft| raft.read(8));
    assert!(matches!(refused, Some(Err(ReadError::NotLeader { .. }))));
}

#[test]
fn a_slow_follower_holds_no_more_than_its_window_of_bytes() {
    let config = GroupConfig {
        seed: 5,
        inflight_bytes_max: 10_000,
        message_bytes_max: 2_000,
        ..GroupConfig::default()
    };
    let mut cluster = Cluster::with(3, 0, config);
    let leader = cluster.elect();
    let slow = replica(if leader == replica(1) { 2 } else { 1 });
    let mut most = 0;
    for round in 0..400 {
        let size = if round % 3 == 0 { 900 } else { 40 };
        cluster.propose(leader, &"x".repeat(size));
        // The slow one hears nothing but heartbeats, and answers them; the third carries the load.
        cluster.tick(leader);
        let beats = [MessageType::MsgHeartbeat, MessageType::MsgHeartbeatResponse];
        let (held, free): (Vec<_>, Vec<_>) =
            std::mem::take(&mut cluster.network).into_iter().partition(|(from, frame)| {
                (*from == slow.node() || Cluster::receiver(frame) == slow)
                    && !beats.contains(&Cluster::kind(frame))
            });
        drop(held);
        free.into_iter().for_each(|(from, frame)| cluster.deliver(from, frame));
        cluster.nodes.keys().copied().collect::<Vec<_>>().into_iter().for_each(
            |id| {
                while cluster.persist(id) {}
            },
        );
        most = most.max(cluster.group(leader).inflight_bytes(slow));
    }
    // A probe goes at 4, 8, … 256 of 400 answers.
    let probes = 7 * 2_000;
    assert!(most > 5_000 && most <= 10_000 + 2_000 + probes, "{most}");
    // It comes back, and catches up.
    for _ in 0..300 {
        cluster.settle();
        cluster.tick(leader);
    }
    let last = cluster.group(leader).last_index();
    assert_eq!(cluster.group(slow).last_index(), last);
    assert_eq!(cluster.group(leader).inflight_bytes(slow), 0);
}

#[test]
fn a_starved_favourite_does_not_block_elections_for_ever() {
    let mut cluster = Cluster::new(3, 0, 11);
    let ids: Vec<_> = cluster.nodes.keys().copied().collect();
    let first = cluster.elect();
    cluster.settle();
    // Replica 3 is everybody's favourite, votes, and never ticks.
    cluster.restart_with(replica(3), GroupConfig { priority: 10, seed: 11, ..GroupConfig::default() });
    cluster.crash(replica(1), 0);
    if first != replica(1) {
        // Nobody leads: one voter is dead, and the other two start anew.
        cluster.restart_with(replica(2), GroupConfig { seed: 11, ..GroupConfig::default() });
        cluster.restart_with(replica(3), GroupConfig { priority: 10, seed: 11, ..GroupConfig::default() });
    }
    cluster.network.clear();
    assert_eq!(cluster.group(replica(3)).priority(), 10);
    let mut ticks = 0;
    while cluster.leader().is_none() {
        cluster.tick(ids[1]);
        cluster.settle();
        ticks += 1;
        assert!(ticks < 120, "blocked for ever");
    }
    assert!(ticks > 20, "the favourite's veto counted for a round: {ticks}");
    assert_eq!(cluster.leader(), Some(replica(2)));
    assert_eq!(cluster.group(replica(3)).priority(), 10, "whole again");
}

#[test]
fn a_replica_that_never_was_in_a_term_vetoes_nobody() {
    // Raft 0.7.0 ends the process when it does.
    let mut cluster = Cluster::new(3, 0, 11);
    cluster.restart_with(replica(3), GroupConfig { priority: 10, seed: 11, ..GroupConfig::default() });
    for _ in 0..60 {
        cluster.tick(replica(2));
        cluster.settle();
    }
    assert_eq!(cluster.leader(), Some(replica(2)));
    assert_eq!(cluster.group(replica(3)).priority(), 10);
}

#[test]
fn t12_a_removed_replica_that_was_never_told_disturbs_nobody() {
    let mut all = nodes(1);
    all.elect();
    let leader = all.leader(ONE).unwrap();
    let removed = if leader == 3 { 2 } else { 3 };
    let others: Vec<u32> = (1..=3).filter(|id| *id != removed).collect();
    all.cut = others.iter().map(|id| (node(*id), node(removed))).collect();
    let host = all.nodes.get_mut(&node(leader)).unwrap();
    host.groups.update(ONE, |raft| raft.propose_change(Change::Remove(replica(removed))).unwrap());
    all.drain(node(leader));
    all.ticks(10);
    assert!(!all.group(leader, ONE).membership().voters.contains(&replica(removed)));
    all.cut.clear();
    let term = all.group(leader, ONE).term();
    all.ticks(300);
    assert_eq!((all.leader(ONE), all.group(leader, ONE).term()), (Some(leader), term));
    all.propose(ONE, Bytes::from_static(b"x"));
    all.ticks(4);
    assert_eq!(all.commands(leader, ONE).len(), 1);
    assert!(all.commands(removed, ONE).is_empty());
}

#[test]
fn row_22_a_leader_whose_disk_stands_still_hands_over_once_and_nothing_waits_for_it() {
    for seed in 0..8 {
        let mut all = Nodes::new(3, 3, GroupConfig { seed, ..GroupConfig::default() });
        all.elect();
        let first = all.leader(ONE).unwrap();
        all.nodes.get_mut(&node(first)).unwrap().standing = Some(Vec::new());
        all.propose(ONE, Bytes::from_static(b"waits"));
        all.ticks(25);
        let second = all.leader(ONE).unwrap();
        assert_ne!(second, first, "seed {seed}: the others do without it");
        all.propose(ONE, Bytes::from_static(b"goes on"));
        all.ticks(2);
        let wanted: Vec<Bytes> = vec![Bytes::from_static(b"waits"), Bytes::from_static(b"goes on")];
        assert_eq!(all.commands(second, ONE), wanted, "seed {seed}");
        let term = all.group(second, ONE).term();
        all.ticks(300);
        assert_eq!(all.group(second, ONE).term(), term, "seed {seed}: nobody wants it back");
        all.go_on(first);
        all.settle();
        all.ticks(10);
        assert_eq!(all.commands(first, ONE), wanted, "seed {seed}: it follows");
    }
}

#[test]
fn a_leader_whose_term_is_not_durable_does_not_hold_the_others_up() {
    for seed in 0..8 {
        let mut all = Nodes::new(3, 1, GroupConfig { seed, ..GroupConfig::default() });
        all.elect();
        let first = all.leader(ONE).unwrap();
        let other = first % 3 + 1;
        all.nodes.get_mut(&node(other)).unwrap().standing = Some(Vec::new());
        let heir = replica(other);
        all.nodes.get_mut(&node(first)).unwrap().groups.update(ONE, |raft| raft.transfer(heir));
        all.drain(node(first));
        all.settle();
        all.ticks(60);
        let leader = all.leader(ONE).unwrap();
        assert_ne!(leader, other, "seed {seed}");
        all.propose(ONE, Bytes::from_static(b"goes on"));
        all.ticks(2);
        assert_eq!(all.commands(leader, ONE).len(), 1, "seed {seed}");
    }
}

#[test]
fn where_all_disks_stand_still_no_term_passes() {
    let mut all = nodes(1);
    all.elect();
    let (first, terms) = (all.leader(ONE).unwrap(), all.terms());
    all.nodes.values_mut().for_each(|host| host.standing = Some(Vec::new()));
    all.propose(ONE, Bytes::from_static(b"waits"));
    all.ticks(100);
    assert_eq!(all.terms(), terms, "a follower whose disk stands still says nothing, and is no heir");
    (1..=3).for_each(|id| all.go_on(id));
    all.settle();
    all.elect();
    all.ticks(5);
    assert_eq!(all.commands(first, ONE).len(), 1);
}
