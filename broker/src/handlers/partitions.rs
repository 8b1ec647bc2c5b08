//! From a topic and a number to a partition that is served here.

use std::sync::Arc;

use tokio::sync::watch;
use varve_common::{GroupId, Offset, TopicId};
use varve_protocol::ErrorCode;
use varve_replica::{
    PartitionView, Role,
    metadata::{Partition, Topic},
};

use crate::node::{Image, Node};

/// A partition that this node serves.
pub struct Served {
    /// Its group.
    pub group: GroupId,
    /// What is published of it now.
    pub view: Arc<PartitionView>,
    /// Wakes with each change.
    pub changes: watch::Receiver<Arc<PartitionView>>,
    /// It has stopped: what is left of it is read, and where that ends nobody knows what there was.
    pub is_damaged: bool,
    /// Another node leads it: what is committed there may not be known here yet.
    pub is_followed: bool,
}

/// How a request names a topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TopicRef {
    /// By name.
    Name(String),
    /// By id.
    Id(TopicId),
}

impl TopicRef {
    /// The topic, or the error that says which way of naming found nothing.
    pub fn find<'a>(&self, image: &'a Image) -> Result<&'a Arc<Topic>, ErrorCode> {
        match self {
            Self::Name(name) => image.topic_by_name(name).ok_or(ErrorCode::UnknownTopicOrPartition),
            Self::Id(id) => image.topic(*id).ok_or(ErrorCode::UnknownTopicId),
        }
    }
}

/// What there is to tell of partitions, topic by topic: of those that a request names, or of all where it names none. Topics
/// of which nothing is told are left out.
pub fn tell<T>(
    image: &Image,
    asked: Option<impl IntoIterator<Item = (impl AsRef<str>, impl AsRef<[i32]>)>>,
    told: impl Fn(i32, &Partition) -> Option<T>,
) -> Vec<(String, Vec<T>)> {
    let of = |topic: &Topic, asked: Option<&[i32]>| {
        let partitions = (0..).zip(&topic.partitions);
        let partitions = partitions.filter(|(index, _)| asked.is_none_or(|asked| asked.contains(index)));
        let told: Vec<T> = partitions.filter_map(|(index, at)| told(index, at)).collect();
        (!told.is_empty()).then(|| (topic.name.to_string(), told))
    };
    match asked {
        None => image.topics.values().filter_map(|topic| of(topic, None)).collect(),
        Some(asked) => {
            let known = |name: &str| image.topic_by_name(name);
            asked
                .into_iter()
                .filter_map(|(name, asked)| of(known(name.as_ref())?, Some(asked.as_ref())))
                .collect()
        }
    }
}

/// The partition of a topic, if this node leads it. What is left of a damaged one is still read.
pub fn find(node: &Node, topic: &Topic, partition: i32) -> Result<Served, ErrorCode> {
    let index = usize::try_from(partition).map_err(|_| ErrorCode::UnknownTopicOrPartition)?;
    let group = topic.partitions.get(index).ok_or(ErrorCode::UnknownTopicOrPartition)?.group;
    // Asked first: a partition that stops is told to be damaged before what is left of it is shown.
    let is_damaged = node.backend.damage(group).is_some();
    if is_damaged && node.backend.leadership(group).is_some_and(|known| known.leader.node() != node.id) {
        // Another node has all of it.
        return Err(ErrorCode::NotLeaderOrFollower);
    }
    let absent = if is_damaged { ErrorCode::KafkaStorageError } else { ErrorCode::NotLeaderOrFollower };
    let changes = node.backend.watch(group).ok_or(absent)?;
    let view = Arc::clone(&changes.borrow());
    if view.ready { Ok(Served { group, view, changes, is_damaged, is_followed: false }) } else { Err(absent) }
}

/// The same for who only reads, and may read what another node leads.
pub fn find_to_read(node: &Node, topic: &Topic, partition: i32) -> Result<Served, ErrorCode> {
    match find(node, topic, partition) {
        Err(ErrorCode::NotLeaderOrFollower) => {
            let index = usize::try_from(partition).expect("it was found");
            follow(node, topic.partitions[index].group).ok_or(ErrorCode::NotLeaderOrFollower)
        }
        found => found,
    }
}

/// A partition that another node leads. It is served as long as this replica votes, is whole, and hears of a leader that says that
/// it keeps up: whoever reads from one that was cut off would wait for records that the others have long had.
fn follow(node: &Node, group: GroupId) -> Option<Served> {
    let changes = node.backend.watch(group)?;
    let view = Arc::clone(&changes.borrow());
    let leader = view.leader.filter(|leader| node.backend.is_alive(leader.node()))?;
    let known = node.backend.leadership(group)?;
    let keeps_up =
        (known.leader, known.epoch) == (leader, view.leader_epoch) && known.in_sync.contains(&view.replica);
    let serves =
        view.whole && view.role == Role::Follower && keeps_up && node.backend.damage(group).is_none();
    serves.then_some(Served { group, view, changes, is_damaged: false, is_followed: true })
}

impl Served {
    /// For an answer that says where the log ends: of a damaged one nobody may be told, or consumers would go there.
    pub fn whole(&self) -> Result<(), ErrorCode> {
        if self.is_damaged { Err(ErrorCode::KafkaStorageError) } else { Ok(()) }
    }
}

/// Whether a client's idea of the leader epoch is ours (KIP-320); -1: it has none.
pub const fn check_epoch(view: &PartitionView, claimed: i32) -> Result<(), ErrorCode> {
    if claimed < 0 || claimed == view.leader_epoch.0 {
        return Ok(());
    }
    Err(if claimed < view.leader_epoch.0 {
        ErrorCode::FencedLeaderEpoch
    } else {
        ErrorCode::UnknownLeaderEpoch
    })
}

/// Where an epoch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochEnd {
    /// The largest epoch that is not above the one that was asked for; -1: unknown.
    pub epoch: i32,
    /// The first offset behind it; -1: unknown.
    pub end: i64,
}

/// Where `epoch` ended, as Kafka's epoch cache answers (KIP-101, KIP-279).
pub fn epoch_end(view: &PartitionView, epoch: i32) -> EpochEnd {
    const UNKNOWN: EpochEnd = EpochEnd { epoch: -1, end: -1 };
    if epoch < 0 || epoch > view.leader_epoch.0 {
        return UNKNOWN;
    }
    if epoch == view.leader_epoch.0 {
        return EpochEnd { epoch, end: view.log_end.to_wire() };
    }
    let above = view.epochs.partition_point(|known| known.term.leader_epoch().0 <= epoch);
    let end = view.epochs.get(above).map_or(view.log_end, |next| next.start);
    // Below the first epoch that is known the question comes back with where that one begins.
    let floor = above.checked_sub(1).map_or(epoch, |place| view.epochs[place].term.leader_epoch().0);
    EpochEnd { epoch: floor, end: end.to_wire() }
}

/// The epoch in which an offset was written; -1: unknown.
pub fn epoch_at(view: &PartitionView, offset: Offset) -> i32 {
    let above = view.epochs.partition_point(|known| known.start <= offset);
    above.checked_sub(1).map_or(-1, |place| view.epochs[place].term.leader_epoch().0)
}

#[cfg(test)]
mod tests {
    use varve_common::{LeaderEpoch, Term};
    use varve_formats::state::EpochStart;

    use super::*;
    use crate::handlers::fake;

    fn view() -> PartitionView {
        PartitionView {
            leader_epoch: LeaderEpoch(7),
            log_end: Offset(50),
            epochs: Arc::new(vec![
                EpochStart { term: Term(2), start: Offset(10) },
                EpochStart { term: Term(5), start: Offset(30) },
            ]),
            ..fake::empty_view()
        }
    }

    #[test]
    fn an_epoch_ends_where_the_next_one_begins() {
        let end = |epoch| (epoch_end(&view(), epoch).epoch, epoch_end(&view(), epoch).end);
        assert_eq!(end(7), (7, 50));
        assert_eq!(end(6), (5, 50));
        assert_eq!(end(5), (5, 50));
        assert_eq!(end(3), (2, 30));
        assert_eq!(end(2), (2, 30));
        assert_eq!(end(1), (1, 10));
        assert_eq!(end(8), (-1, -1));
        assert_eq!(end(i32::MIN), (-1, -1));
    }

    #[test]
    fn offsets_know_their_epoch_and_claims_are_compared() {
        assert_eq!(
            (epoch_at(&view(), Offset(29)), epoch_at(&view(), Offset(30)), epoch_at(&view(), Offset(9))),
            (2, 5, -1)
        );
        assert_eq!(check_epoch(&view(), -1), Ok(()));
        assert_eq!(check_epoch(&view(), 6), Err(ErrorCode::FencedLeaderEpoch));
        assert_eq!(check_epoch(&view(), 8), Err(ErrorCode::UnknownLeaderEpoch));
    }
}
