//! Nodes that are their mailboxes: what a shard would say is said by a script.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex},
};

use varve_common::{ClusterId, Incarnation, ReplicaId, Term, TopicId, clock::BoxFuture};
use varve_consensus::LeaderReport;
use varve_formats::command::CreateTopic;
use varve_replica::metadata::{Image, MetadataDone};

use super::*;
use crate::{
    controller::Controller,
    runtime::mailbox::{Inbox, Mail, mailbox},
};

/// Time that passes when somebody waits for it.
#[derive(Default)]
struct Steps(Mutex<Duration>);

impl Clock for Steps {
    fn monotonic(&self) -> Monotonic {
        Monotonic(*self.0.lock().unwrap())
    }

    fn wall_ms(&self) -> i64 {
        0
    }

    fn sleep(&self, span: Duration) -> BoxFuture<'static, ()> {
        // Long waits guard short ones: those who wait for little go on.
        if span > PAUSE {
            return Box::pin(std::future::pending());
        }
        *self.0.lock().unwrap() += Duration::from_secs(1);
        Box::pin(tokio::task::yield_now())
    }
}

fn node(id: u32) -> NodeId {
    NodeId::new(id).unwrap()
}

fn replica(id: u32) -> ReplicaId {
    ReplicaId::new(node(id), 1).unwrap()
}

fn image(index: u64) -> Image {
    let mut image = Image::new(ClusterId::from_random(1), Incarnation(1));
    image.index = LogIndex(index);
    image
}

/// A node whose shard answers what it is told to.
struct Peer {
    id: NodeId,
    mailbox: Mailbox,
    inbox: Mutex<Inbox>,
    views: Views,
    link: Link,
    clock: Steps,
    says: Mutex<VecDeque<Reply>>,
    handed: Mutex<Vec<(GroupId, ReplicaId)>>,
}

impl Peer {
    fn new(id: u32, says: impl IntoIterator<Item = Reply>) -> Arc<Self> {
        let (mailbox, inbox) = mailbox();
        Arc::new(Self {
            id: node(id),
            mailbox,
            inbox: Mutex::new(inbox),
            views: Views::new(image(7)),
            link: Link::default(),
            clock: Steps::default(),
            says: Mutex::new(says.into_iter().collect()),
            handed: Mutex::default(),
        })
    }

    fn changes(&self) -> Changes<'_> {
        Changes {
            node: self.id,
            mailbox: &self.mailbox,
            views: &self.views,
            link: &self.link,
            clock: &self.clock,
        }
    }

    /// The shard's side: answers what is asked, in order; the last answer for ever.
    async fn serve(&self) -> ! {
        loop {
            self.read();
            tokio::task::yield_now().await;
        }
    }

    fn read(&self) {
        let letters = self.inbox.lock().unwrap().take(Duration::ZERO).unwrap();
        for letter in letters {
            let answer = match letter {
                Mail::Request { answer, .. } => answer,
                Mail::Event(event) => {
                    let Event::Peer(PeerInput::Transfer { group, to }) = *event else { panic!() };
                    self.handed.lock().unwrap().push((group, to));
                    continue;
                }
                _ => panic!("nothing else comes"),
            };
            let mut says = self.says.lock().unwrap();
            let reply = if says.len() > 1 { says.pop_front() } else { says.front().cloned() };
            drop(answer.send(reply.unwrap()));
        }
    }

    async fn change(&self, command: MetadataCommand) -> Result<Done, MetadataRefusal> {
        let changes = self.changes();
        tokio::select! {
            done = changes.change(command) => done,
            never = self.serve() => never,
        }
    }
}

/// Carries requests to peers of this process; `None`: the reply is lost, after the request arrived.
struct Wire(BTreeMap<NodeId, Option<Arc<Peer>>>);

impl Controller for Wire {
    fn forward(&self, to: NodeId, request: Bytes) -> BoxFuture<'static, Result<Bytes, Unanswered>> {
        let peer = self.0.get(&to).cloned();
        Box::pin(async move {
            match peer {
                Some(Some(peer)) => tokio::select! {
                    reply = async { peer.changes().answer(request).await } => Ok(reply),
                    never = peer.serve() => never,
                },
                Some(None) => Err(Unanswered::Lost),
                None => Err(Unanswered::NotSent),
            }
        })
    }
}

fn connect(from: &Peer, to: impl IntoIterator<Item = (u32, Option<Arc<Peer>>)>) {
    from.link.connect(Arc::new(Wire(to.into_iter().map(|(id, peer)| (node(id), peer)).collect())));
}

const IDS: MetadataCommand = MetadataCommand::AllocateProducerIds { count: 5 };

fn ids() -> Reply {
    Reply::Metadata(Ok(MetadataDone::ProducerIds { first: 40, count: 5 }))
}

fn not_leader(leader: Option<u32>) -> Reply {
    Reply::Refused(Refusal::NotLeader { leader: leader.map(replica) })
}

fn topic(id: u128) -> MetadataCommand {
    let id = TopicId::from_random(id);
    MetadataCommand::CreateTopic(CreateTopic {
        id,
        name: "a".into(),
        partitions: Vec::new(),
        configs: Vec::new(),
    })
}

#[tokio::test]
async fn a_node_alone_asks_itself_until_it_leads_and_has_time_for_it() {
    let busy = Reply::Refused(Refusal::Throttled);
    let storage = Reply::Refused(Refusal::StorageError);
    let alone = Peer::new(1, [ids(), not_leader(None), busy.clone(), busy.clone(), ids(), storage]);
    assert_eq!(alone.change(IDS).await, Ok(Done::ProducerIds { first: 40, count: 5 }));
    assert_eq!(alone.change(IDS).await, Ok(Done::ProducerIds { first: 40, count: 5 }));
    assert_eq!(alone.change(IDS).await, Err(MetadataRefusal::Storage));
    let never = Peer::new(1, [busy]);
    assert_eq!(never.change(IDS).await, Err(MetadataRefusal::NotController));
    let unknown = Peer::new(1, [Reply::Refused(Refusal::Unknown)]);
    assert_eq!(unknown.change(IDS).await, Err(MetadataRefusal::TimedOut), "it may be done");
}

#[tokio::test]
async fn a_change_goes_to_the_leader_and_shows_here_before_it_counts() {
    let (here, there) = (Peer::new(1, [not_leader(Some(2))]), Peer::new(2, [ids()]));
    connect(&here, [(2, Some(Arc::clone(&there)))]);
    there.views.set_image(&image(9));
    let mut changed = Box::pin(here.change(IDS));
    for _ in 0..100 {
        assert!(
            futures_util::poll!(&mut changed).is_pending(),
            "this node's metadata is at 7, and 9 was told"
        );
    }
    here.views.set_image(&image(9));
    assert_eq!(changed.await, Ok(Done::ProducerIds { first: 40, count: 5 }));
}

#[tokio::test]
async fn without_a_leader_it_is_tried_until_there_is_one_or_time_is_up() {
    let patient = Peer::new(1, [not_leader(None), not_leader(None), not_leader(None), ids()]);
    connect(&patient, []);
    assert!(patient.change(IDS).await.is_ok());
    let nobody = Peer::new(1, [not_leader(None)]);
    connect(&nobody, []);
    assert_eq!(nobody.change(IDS).await, Err(MetadataRefusal::NotController));
    // A leader that is only heard of, and cannot be reached: nothing was done either.
    let heard = Peer::new(1, [not_leader(None)]);
    connect(&heard, []);
    let (group, leader) = (GroupId::METADATA, replica(2));
    let _ = heard.views.learn(&[LeaderReport {
        group,
        term: Term(3),
        version: 1,
        leader,
        in_sync: vec![leader],
    }]);
    assert_eq!(heard.change(IDS).await, Err(MetadataRefusal::NotController));
}

#[tokio::test]
async fn two_nodes_that_take_each_other_for_the_leader_end_with_the_one_that_leads() {
    let there = Peer::new(2, [not_leader(Some(1)), not_leader(Some(1)), not_leader(Some(3))]);
    let third = Peer::new(3, [ids()]);
    let here = Peer::new(1, [not_leader(Some(2))]);
    connect(&here, [(2, Some(there)), (3, Some(third))]);
    assert!(here.change(IDS).await.is_ok());
}

#[tokio::test]
async fn what_a_lost_reply_had_done_counts_as_done_and_else_is_unknown() {
    let exists = |id| Reply::Metadata(Err(MetadataRejected::TopicExists { id: TopicId::from_random(id) }));
    let lost = |then: Reply| {
        let here = Peer::new(1, [not_leader(Some(2)), then]);
        connect(&here, [(2, None)]);
        here
    };
    assert_eq!(lost(exists(5)).change(topic(5)).await, Ok(Done::Changed));
    let other = MetadataRejected::TopicExists { id: TopicId::from_random(6) };
    assert_eq!(lost(exists(6)).change(topic(5)).await, Err(other.into()));
    let delete = MetadataCommand::DeleteTopic { id: TopicId::from_random(5) };
    let unknown = || Reply::Metadata(Err(MetadataRejected::UnknownTopic));
    assert_eq!(lost(unknown()).change(delete.clone()).await, Ok(Done::Changed));
    assert_eq!(lost(not_leader(Some(2))).change(IDS).await, Err(MetadataRefusal::TimedOut));
    let certain = Peer::new(1, [unknown()]);
    connect(&certain, []);
    assert_eq!(certain.change(delete).await, Err(MetadataRejected::UnknownTopic.into()));
}

#[tokio::test]
async fn the_leader_of_a_group_is_asked_to_hand_over_and_the_new_one_is_waited_for() {
    let (here, there) = (Peer::new(1, []), Peer::new(2, []));
    connect(&here, [(2, Some(Arc::clone(&there)))]);
    let group = GroupId(5);
    let report = |term, leader| LeaderReport {
        group,
        term: Term(term),
        version: 1,
        leader: replica(leader),
        in_sync: vec![replica(leader)],
    };
    let within = Duration::from_secs(5);
    assert!(!here.changes().elect(group, replica(1), within).await, "nobody leads");
    let _ = here.views.learn(&[report(1, 2)]);
    let changes = here.changes();
    let mut elected = Box::pin(changes.elect(group, replica(1), within));
    for _ in 0..10 {
        assert!(futures_util::poll!(&mut elected).is_pending());
        tokio::task::yield_now().await;
    }
    there.read();
    assert_eq!(*there.handed.lock().unwrap(), [(group, replica(1))]);
    let _ = here.views.learn(&[report(2, 1)]);
    assert!(elected.await);
    // Now it leads itself.
    let mut elected = Box::pin(changes.elect(group, replica(2), within));
    assert!(futures_util::poll!(&mut elected).is_pending());
    let _ = here.views.learn(&[report(3, 2)]);
    assert!(elected.await);
    here.read();
    assert_eq!(*here.handed.lock().unwrap(), [(group, replica(2))]);
}
