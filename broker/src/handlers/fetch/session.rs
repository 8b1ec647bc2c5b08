//! Incremental fetch sessions (KIP-227): the broker remembers what a client wants, and tells only what changed.
//!
//! | request (id, epoch) | meaning |
//! |---|---|
//! | any, -1 | full fetch without a session; a session with that id ends |
//! | any, 0 | full fetch that asks for a new session; one with that id ends |
//! | id, n > 0 | incremental: the request holds changes only; n must be the next one |

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
};

use varve_common::{Entropy, TopicId};
use varve_protocol::{
    ErrorCode,
    messages::{FetchRequest, StrBytes, Uuid},
};

use super::{super::partitions::TopicRef, pass::Fetched};

const FINAL_EPOCH: i32 = -1;
const INITIAL_EPOCH: i32 = 0;

/// What is wanted of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The topic as the client names it.
    pub topic: TopicRef,
    /// The partition's number.
    pub partition: i32,
    /// The first offset that is wanted.
    pub offset: i64,
    /// The most bytes.
    pub bytes_max: usize,
    /// The leader epoch that the client knows; -1: none.
    pub current_leader_epoch: i32,
    /// The epoch of the last record that it has; -1: none.
    pub last_fetched_epoch: i32,
}

/// What a fetch does.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Which session it belongs to.
    pub session: Opened,
    /// All that is wanted, in order.
    pub wanted: Vec<Wanted>,
}

/// A fetch's session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opened {
    /// None.
    Sessionless,
    /// One that begins: everything is told.
    New {
        /// Its id.
        id: i32,
    },
    /// One that goes on: changes are told.
    Continued {
        /// Its id.
        id: i32,
    },
}

/// What was told last of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Told {
    high_watermark: i64,
    last_stable: i64,
    log_start: i64,
    error: i16,
}

#[derive(Debug)]
struct Session {
    by_id: bool,
    next_epoch: i32,
    /// In the order in which partitions are visited: those that just gave records go to the end.
    order: Vec<Wanted>,
    told: BTreeMap<(TopicRef, i32), Told>,
    used: u64,
}

#[derive(Debug, Default)]
struct Cache {
    sessions: BTreeMap<i32, Session>,
    uses: u64,
}

/// The sessions of all clients, bounded; the least recently used one makes room.
#[derive(Debug)]
pub struct Sessions {
    sessions_max: usize,
    cache: Mutex<Cache>,
}

impl Sessions {
    /// None yet.
    pub fn new(sessions_max: usize) -> Self {
        Self { sessions_max, cache: Mutex::default() }
    }

    /// How many there are.
    pub fn count(&self) -> i64 {
        self.lock().sessions.len() as i64
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a request wants, with what its session remembers.
    pub fn open(
        &self,
        request: &FetchRequest,
        by_id: bool,
        entropy: &dyn Entropy,
    ) -> Result<Plan, ErrorCode> {
        let mut cache = self.lock();
        match request.session_epoch {
            FINAL_EPOCH | INITIAL_EPOCH => {
                cache.sessions.remove(&request.session_id);
                let wanted = distinct(wanted(request, by_id));
                let opened = if request.session_epoch == INITIAL_EPOCH && self.sessions_max > 0 {
                    cache.begin(self.sessions_max, by_id, &wanted, entropy)
                } else {
                    Opened::Sessionless
                };
                Ok(Plan { session: opened, wanted })
            }
            _ => cache.go_on(request, by_id),
        }
    }

    /// What of it must be told, and remembers that it was.
    pub fn close(&self, plan: &Plan, fetched: Vec<Fetched>) -> Vec<Fetched> {
        let (id, all) = match plan.session {
            Opened::Sessionless => return fetched,
            Opened::New { id } => (id, true),
            Opened::Continued { id } => (id, false),
        };
        let mut cache = self.lock();
        // A session that made room meanwhile: the client hears of everything, and of the loss with its next request.
        let Some(session) = cache.sessions.get_mut(&id) else { return fetched };
        session.rotate(&fetched);
        fetched.into_iter().filter(|fetched| session.tell(fetched) || all).collect()
    }
}

impl Cache {
    fn begin(
        &mut self,
        sessions_max: usize,
        by_id: bool,
        wanted: &[Wanted],
        entropy: &dyn Entropy,
    ) -> Opened {
        while self.sessions.len() >= sessions_max {
            let oldest = self.sessions.iter().min_by_key(|(_, session)| session.used).map(|(id, _)| *id);
            oldest.and_then(|id| self.sessions.remove(&id));
        }
        let id = loop {
            let id = (entropy.next_u64() >> 33) as i32;
            if id != 0 && !self.sessions.contains_key(&id) {
                break id;
            }
        };
        let used = self.tick();
        let session = Session { by_id, next_epoch: 1, order: wanted.to_vec(), told: BTreeMap::new(), used };
        self.sessions.insert(id, session);
        Opened::New { id }
    }

    fn go_on(&mut self, request: &FetchRequest, by_id: bool) -> Result<Plan, ErrorCode> {
        let used = self.tick();
        let id = request.session_id;
        let session = self.sessions.get_mut(&id).ok_or(ErrorCode::FetchSessionIdNotFound)?;
        if session.next_epoch != request.session_epoch {
            return Err(ErrorCode::InvalidFetchSessionEpoch);
        }
        if session.by_id != by_id {
            return Err(ErrorCode::FetchSessionTopicIdError);
        }
        session.used = used;
        session.next_epoch = session.next_epoch.checked_add(1).unwrap_or(1);
        session.forget(request);
        session.update(wanted(request, by_id));
        Ok(Plan { session: Opened::Continued { id }, wanted: session.order.clone() })
    }

    const fn tick(&mut self) -> u64 {
        self.uses += 1;
        self.uses
    }
}

impl Session {
    fn forget(&mut self, request: &FetchRequest) {
        let topics = &request.forgotten_topics_data;
        let forgotten: BTreeSet<(TopicRef, i32)> = topics
            .iter()
            .flat_map(|topic| {
                let name = reference(&topic.topic, topic.topic_id, self.by_id);
                topic.partitions.iter().map(move |partition| (name.clone(), *partition))
            })
            .collect();
        if !forgotten.is_empty() {
            self.order.retain(|want| !forgotten.contains(&(want.topic.clone(), want.partition)));
            self.told.retain(|key, _| !forgotten.contains(key));
        }
    }

    fn update(&mut self, wanted: Vec<Wanted>) {
        if wanted.is_empty() {
            return;
        }
        let place = |want: &Wanted| (want.topic.clone(), want.partition);
        let mut places: BTreeMap<(TopicRef, i32), usize> =
            self.order.iter().enumerate().map(|(at, want)| (place(want), at)).collect();
        for want in wanted {
            match places.get(&place(&want)) {
                Some(at) => self.order[*at] = want,
                None => {
                    places.insert(place(&want), self.order.len());
                    self.order.push(want);
                }
            }
        }
    }

    /// Whether this is news; remembers it.
    fn tell(&mut self, fetched: &Fetched) -> bool {
        let data = &fetched.data;
        let told = Told {
            high_watermark: data.high_watermark,
            last_stable: data.last_stable_offset,
            log_start: data.log_start_offset,
            error: data.error_code,
        };
        let before = self.told.insert((fetched.topic.clone(), data.partition_index), told);
        before != Some(told) || fetched.bytes() > 0 || fetched.is_urgent()
    }

    /// What gave records is visited last next time: a busy partition does not starve the others of `max_bytes`.
    fn rotate(&mut self, fetched: &[Fetched]) {
        let gave: BTreeSet<(&TopicRef, i32)> = fetched
            .iter()
            .filter(|fetched| fetched.bytes() > 0)
            .map(|fetched| (&fetched.topic, fetched.data.partition_index))
            .collect();
        self.order.sort_by_key(|want| gave.contains(&(&want.topic, want.partition)));
    }
}

fn reference(name: &StrBytes, id: Uuid, by_id: bool) -> TopicRef {
    if by_id { TopicRef::Id(TopicId(id.to_bytes())) } else { TopicRef::Name(name.as_str().to_owned()) }
}

fn wanted(request: &FetchRequest, by_id: bool) -> Vec<Wanted> {
    let topics = request.topics.iter().flat_map(|topic| {
        let name = reference(&topic.topic, topic.topic_id, by_id);
        topic.partitions.iter().map(move |partition| Wanted {
            topic: name.clone(),
            partition: partition.partition,
            offset: partition.fetch_offset,
            bytes_max: usize::try_from(partition.partition_max_bytes).unwrap_or(0),
            current_leader_epoch: partition.current_leader_epoch,
            last_fetched_epoch: partition.last_fetched_epoch,
        })
    });
    topics.collect()
}

/// A partition that stands twice counts as it stands last.
fn distinct(wanted: Vec<Wanted>) -> Vec<Wanted> {
    let mut session =
        Session { by_id: false, next_epoch: 0, order: Vec::new(), told: BTreeMap::new(), used: 0 };
    session.update(wanted);
    session.order
}
