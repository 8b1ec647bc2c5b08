//! Reads from the bucket: what the manifest names, through bounded caches (TIERING.md 10).
//!
//! ```text
//! offset -> root -> leaf (cached) -> entry -> footer and block index (cached) -> block -> chunks (cached)
//! ```
//! Invariants
//! - What the manifest does not name does not exist, and what it names is never "no data": a segment that is not there
//!   is [`ColdError::Missing`], one whose bytes are wrong is [`ColdError::Corrupt`], and neither moves a reader on.
//! - Nothing is handed out unchecked: nodes by SHA-256, footers and indices by CRC, blocks by CRC when they are
//!   decoded. Wrong bytes are asked for once more, past the cache, in case the way here spoiled them.
//! - Objects never change, so nothing that is cached is ever stale.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard},
};

use bytes::Bytes;
use futures_util::{FutureExt as _, future};
use varve_common::{ObjectKey, Offset, clock::BoxFuture, codec::DecodeError};
use varve_formats::{
    PartitionIdentity,
    keys::Keys,
    manifest::{Entry, EntryKind, NodeReference, Place},
    node::Node,
    segment::{BlockEntry, decode_block},
};
use varve_objects::{Failure, GetError, Store, get_verified};

use crate::{
    ahead::Cursors,
    chunks::{ChunkCache, Object},
    extent::PartitionExtent,
    glimpse::{Glimpse, Glimpses},
    limits::{GLIMPSE_BYTES, READ_AHEAD_BYTES_MAX},
    lru::Lru,
    segment::{Opening, SegmentMap, Step, batches_from},
    tail::{Batches, ReadLimits},
    turns::{Consumer, Need},
    upload::STORE_ID,
};

/// How much cold reads may hold in memory beside the chunks.
#[derive(Clone, Copy, Debug)]
pub struct ColdOptions {
    /// Manifest nodes and block indices together: each gets half. More of it saves requests on random reads. 64 MiB.
    pub index_bytes_max: usize,
    /// The farthest that a sequential reader is read ahead for, 0 for never. 64 MiB.
    pub read_ahead_bytes_max: u64,
    /// What a first look into a segment brings at the most: more than a block, and less than a chunk. 2 MiB.
    pub glimpse_bytes: usize,
}

impl Default for ColdOptions {
    fn default() -> Self {
        Self {
            index_bytes_max: 64 << 20,
            read_ahead_bytes_max: READ_AHEAD_BYTES_MAX,
            glimpse_bytes: GLIMPSE_BYTES,
        }
    }
}

/// Why what is in the bucket could not be read. Clients may retry all of them; none means that the offset is out of
/// range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ColdError {
    /// The store did not give it: Retry by its failure.
    #[error("{key}: {failure}")]
    Store {
        /// Which object.
        key: ObjectKey,
        /// What it said.
        failure: Failure,
    },
    /// An object that the manifest names is not there (invariant B1): the operator. Loud.
    #[error("{key}: the manifest names an object that is not in the store")]
    Missing {
        /// Which object.
        key: ObjectKey,
    },
    /// An object that the manifest names does not hold what it should: the operator. Loud.
    #[error("{key}: {cause}")]
    Corrupt {
        /// Which object.
        key: ObjectKey,
        /// What is wrong.
        cause: DecodeError,
    },
    /// The manifest names something that this version cannot read.
    #[error("the segment at {base} is of a kind or in a store that this version does not know")]
    Unknown {
        /// Where it begins.
        base: Offset,
    },
}

impl ColdError {
    fn get(key: &ObjectKey, error: GetError) -> Self {
        let key = key.clone();
        match error {
            GetError::NotFound => Self::Missing { key },
            GetError::OutOfRange(_) => {
                Self::Corrupt { key, cause: DecodeError { what: "an object is too short", position: 0 } }
            }
            GetError::Failed(failure) => Self::Store { key, failure },
        }
    }

    /// Whether bytes are wrong, so that another try past the caches may help.
    const fn is_wrong_bytes(&self) -> bool {
        matches!(self, Self::Corrupt { .. } | Self::Store { failure: Failure::Corrupt(_), .. })
    }

    /// Whether something that is promised is not there: worth an alarm, where a failure of the store is not.
    #[must_use]
    pub const fn is_damage(&self) -> bool {
        matches!(self, Self::Missing { .. } | Self::Corrupt { .. })
            || matches!(self, Self::Store { failure: Failure::Corrupt(_), .. })
    }
}

/// A segment of the bucket, opened.
#[derive(Clone)]
pub(crate) struct ColdSegment {
    object: Object,
    pub(crate) map: Arc<SegmentMap>,
}

struct Shared {
    store: Arc<dyn Store>,
    keys: Keys,
    chunks: ChunkCache,
    nodes: Lru<ObjectKey, Arc<Node>>,
    segments: Lru<ObjectKey, Arc<SegmentMap>>,
    /// Segments that are being opened: each once, whoever waits.
    opening: Mutex<BTreeMap<ObjectKey, Opened>>,
    cursors: Cursors,
    glimpses: Glimpses,
}

type Opened = future::Shared<BoxFuture<'static, Result<Arc<SegmentMap>, ColdError>>>;

/// Reads the bucket. Clones share the caches.
#[derive(Clone)]
pub struct ColdReader {
    shared: Arc<Shared>,
    consumer: Consumer,
}

impl ColdReader {
    /// Reads objects of a cluster. `chunks` must be over the same `store`.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, keys: Keys, chunks: ChunkCache, options: ColdOptions) -> Self {
        let shared = Shared {
            store,
            keys,
            nodes: Lru::new(options.index_bytes_max / 2),
            segments: Lru::new(options.index_bytes_max / 2),
            opening: Mutex::default(),
            cursors: Cursors::new(chunks.options(), options.read_ahead_bytes_max),
            glimpses: Glimpses::new(options.glimpse_bytes),
            chunks,
        };
        Self { shared: Arc::new(shared), consumer: Consumer::default() }
    }

    /// The same on behalf of a consumer, which takes its turn with others.
    #[must_use]
    pub fn of(&self, consumer: Consumer) -> Self {
        Self { shared: Arc::clone(&self.shared), consumer }
    }

    /// Bytes of nodes and block indices that are held.
    #[must_use]
    pub fn index_bytes(&self) -> usize {
        self.shared.nodes.weight() + self.shared.segments.weight()
    }

    /// The chunk cache.
    #[must_use]
    pub fn chunks(&self) -> &ChunkCache {
        &self.shared.chunks
    }

    /// Whole batches from the one that holds `from`; `None` where the manifest does not name a range that holds it.
    pub async fn read(
        &self,
        extent: &PartitionExtent<'_>,
        from: Offset,
        limits: ReadLimits,
    ) -> Result<Option<Batches>, ColdError> {
        let mut read = Batches::none_at(from);
        let window = self.shared.cursors.take(extent.group, from);
        let mut ahead = window;
        while let Some(entry) = self.find(extent, read.next).await? {
            if entry.base > read.next {
                break;
            }
            let step = self.read_entry(extent, &entry, limits, &mut ahead, &mut read).await;
            match step {
                Ok(true) => {}
                Ok(false) => {
                    self.shared.cursors.put((self.consumer, extent.group), read.next, window);
                    return Ok(Some(read));
                }
                // What was read is good; the reader that goes on meets the error.
                Err(_) if !read.chunks.is_empty() => return Ok(Some(read)),
                Err(error) => return Err(error),
            }
        }
        self.shared.cursors.put((self.consumer, extent.group), read.next, window);
        Ok((read.next > from).then_some(read))
    }

    /// Reads on in one segment; false where the limits are reached.
    async fn read_entry(
        &self,
        extent: &PartitionExtent<'_>,
        entry: &Entry,
        limits: ReadLimits,
        ahead: &mut u64,
        read: &mut Batches,
    ) -> Result<bool, ColdError> {
        let glimpse = self.guess(extent, entry, read.next, limits.bytes_max);
        let segment = self.open(extent, entry).await?;
        let blocks = &segment.map.index.blocks;
        let first = segment.map.index.locate(read.next).unwrap_or(blocks.len());
        if let Some(block) = blocks.get(first) {
            self.read_ahead(extent, entry, &segment, block.position, std::mem::take(ahead)).await;
        }
        for block in &blocks[first..] {
            if !read.chunks.is_empty() && read.bytes >= limits.bytes_max {
                return Ok(false);
            }
            let raw = self.block(&segment, block, glimpse.as_ref()).await?;
            for batch in batches_from(&raw, read.next) {
                let (header, batch) = batch.map_err(|cause| segment.corrupt(cause))?;
                if header.base > read.next && entry.kind != EntryKind::Compacted {
                    return Err(segment.corrupt(DecodeError { what: "a batch is missing", position: 0 }));
                }
                if !read.take(limits, header.last.next(), &batch) {
                    return Ok(false);
                }
            }
        }
        // Behind the last batch there may be offsets that compaction has emptied, and only those.
        if read.next < entry.end().min(limits.below) && entry.kind != EntryKind::Compacted {
            return Err(segment.corrupt(DecodeError { what: "a segment ends early", position: 0 }));
        }
        read.next = read.next.max(entry.end().min(limits.below));
        Ok(read.next < limits.below)
    }

    /// Looks where an offset most likely lies in a segment that is not open, beside the index that will tell.
    fn guess(
        &self,
        extent: &PartitionExtent<'_>,
        entry: &Entry,
        offset: Offset,
        wanted: usize,
    ) -> Option<Glimpse> {
        let object = self.object(extent, entry).ok()?;
        if self.shared.segments.get(&object.key).is_some() {
            return None;
        }
        let (ahead, all) = (offset.0.saturating_sub(entry.base.0), (entry.end().0 - entry.base.0).max(1));
        let position = (u128::from(object.bytes) * u128::from(ahead) / u128::from(all)) as u64;
        let (chunks, look) = (&self.shared.chunks, (position, wanted));
        let glimpse = self.shared.glimpses.look(chunks, self.consumer, &object, look);
        if glimpse.is_none() {
            chunks.begin((self.consumer, Need::Now), &object, position..position + 1);
        }
        glimpse
    }

    /// Asks for `window` bytes from `position` on, across the ends of segments as far as the manifest is at hand.
    async fn read_ahead(
        &self,
        extent: &PartitionExtent<'_>,
        entry: &Entry,
        segment: &ColdSegment,
        position: u64,
        window: u64,
    ) {
        let chunks = &self.shared.chunks;
        let blocks_end = segment.map.footer.blocks_end();
        let end = (position + window).min(blocks_end);
        let ask = (self.consumer, Need::Ahead);
        chunks.begin(ask, &segment.object, position..end);
        let mut rest = (position + window).saturating_sub(blocks_end);
        let mut next = entry.end();
        while rest > 0 {
            // A failure is met again, and told, by the reader that gets there.
            let Ok(Some(entry)) = self.find(extent, next).await else { break };
            let Ok(object) = self.object(extent, &entry) else { break };
            let bytes = rest.min(object.bytes);
            chunks.begin(ask, &object, 0..bytes);
            if self.shared.segments.get(&object.key).is_none() {
                // Its index, too: the reader that gets there finds it open.
                let opened = self.opened(extent.identity, &entry, &object);
                chunks.beside(async move { drop(opened.await) });
            }
            rest -= bytes;
            next = entry.end();
        }
    }

    /// The first entry that ends behind `offset`; `None` at or behind the manifest's end.
    pub async fn find(
        &self,
        extent: &PartitionExtent<'_>,
        offset: Offset,
    ) -> Result<Option<Entry>, ColdError> {
        let mut reference = match extent.root.find(offset) {
            None => return Ok(None),
            Some(Place::Entry(entry)) => return Ok(Some(entry.clone())),
            Some(Place::Node(node)) => node.clone(),
        };
        loop {
            let node = self.node(extent, &reference).await?;
            reference = match node.find(offset) {
                None => return Ok(None),
                Some(Place::Entry(entry)) => return Ok(Some(entry.clone())),
                Some(Place::Node(below)) => below.clone(),
            };
        }
    }

    /// A manifest node.
    pub(crate) async fn node(
        &self,
        extent: &PartitionExtent<'_>,
        reference: &NodeReference,
    ) -> Result<Arc<Node>, ColdError> {
        let key = self.shared.keys.node(extent.identity.topic_id, extent.identity.partition, reference);
        if let Some(node) = self.shared.nodes.get(&key) {
            return Ok(node);
        }
        let bytes = get_verified(&*self.shared.store, &key, reference.length, reference.sha256)
            .await
            .map_err(|error| ColdError::get(&key, error))?;
        let node = Node::verify(&bytes, reference, extent.identity)
            .map_err(|cause| ColdError::Corrupt { key: key.clone(), cause })?;
        let node = Arc::new(node);
        self.shared.nodes.insert(key, Arc::clone(&node), bytes.len());
        Ok(node)
    }

    fn object(&self, extent: &PartitionExtent<'_>, entry: &Entry) -> Result<Object, ColdError> {
        let key = self.shared.keys.entry(extent.identity.topic_id, extent.identity.partition, entry);
        match key {
            Some(key) if entry.store_id == STORE_ID && entry.position == 0 => {
                Ok(Object { key, bytes: entry.length })
            }
            _ => Err(ColdError::Unknown { base: entry.base }),
        }
    }

    /// Footer and block index of an entry's segment.
    pub(crate) async fn open(
        &self,
        extent: &PartitionExtent<'_>,
        entry: &Entry,
    ) -> Result<ColdSegment, ColdError> {
        let object = self.object(extent, entry)?;
        if let Some(map) = self.shared.segments.get(&object.key) {
            return Ok(ColdSegment { object, map });
        }
        let map = self.opened(extent.identity, entry, &object).await?;
        Ok(ColdSegment { object, map })
    }

    /// The opening of a segment that is under way, or one that begins.
    fn opened(&self, identity: &PartitionIdentity, entry: &Entry, object: &Object) -> Opened {
        let mut opening = self.opening();
        if let Some(opened) = opening.get(&object.key) {
            return opened.clone();
        }
        let (reader, identity) = (self.clone(), identity.clone());
        let (entry, place) = (entry.clone(), object.clone());
        let opened: BoxFuture<'static, _> = Box::pin(async move {
            let opened = match reader.open_object(&identity, &entry, &place).await {
                Err(error) if error.is_wrong_bytes() => reader.open_object(&identity, &entry, &place).await,
                opened => opened,
            };
            let opened = opened.map(Arc::new);
            if let Ok(map) = &opened {
                reader.shared.segments.insert(place.key.clone(), Arc::clone(map), map.weight());
            }
            reader.opening().remove(&place.key);
            opened
        });
        let opened = opened.shared();
        opening.insert(object.key.clone(), opened.clone());
        opened
    }

    fn opening(&self) -> MutexGuard<'_, BTreeMap<ObjectKey, Opened>> {
        self.shared.opening.lock().expect("no holder of this lock panics")
    }

    async fn open_object(
        &self,
        identity: &PartitionIdentity,
        entry: &Entry,
        object: &Object,
    ) -> Result<SegmentMap, ColdError> {
        let corrupt = |cause| ColdError::Corrupt { key: object.key.clone(), cause };
        let mut opening = Opening::new(object.bytes);
        let map = loop {
            let bytes = self.get(object, opening.wants()).await?;
            match opening.feed(&bytes).map_err(corrupt)? {
                Step::Wants(more) => opening = more,
                Step::Open(map) => break map,
            }
        };
        map.check(identity, entry.base, entry.end()).map_err(corrupt)?;
        Ok(map)
    }

    /// Bytes past the chunk cache.
    async fn get(&self, object: &Object, range: Range<u64>) -> Result<Bytes, ColdError> {
        let wanted = range.end.saturating_sub(range.start);
        let bytes = self
            .shared
            .store
            .get_range(&object.key, range)
            .await
            .map_err(|error| ColdError::get(&object.key, error))?;
        if bytes.len() as u64 == wanted {
            return Ok(bytes);
        }
        let cause =
            DecodeError { what: "fewer or more bytes arrived than were asked for", position: bytes.len() };
        Err(ColdError::Corrupt { key: object.key.clone(), cause })
    }

    /// The batches of a block, from a first look or from its chunks.
    pub(crate) async fn block(
        &self,
        segment: &ColdSegment,
        block: &BlockEntry,
        glimpse: Option<&Glimpse>,
    ) -> Result<Bytes, ColdError> {
        let (chunks, object, range) = (&self.shared.chunks, &segment.object, block.range());
        let seen = match glimpse {
            Some(glimpse) => glimpse.slice(&range).await,
            None => self.shared.glimpses.slice(object, &range),
        };
        if let Some(Ok(raw)) = seen.map(|bytes| decode_block(bytes, block)) {
            return Ok(raw);
        }
        // In the background: where the reader gives up at its deadline, the fill goes on and lands in the cache.
        chunks.begin((self.consumer, Need::Now), object, range.clone());
        match chunks.read_for(self.consumer, object, range.clone()).await {
            Ok(bytes) => {
                if let Ok(raw) = decode_block(bytes, block) {
                    return Ok(raw);
                }
            }
            Err(GetError::Failed(Failure::Corrupt(_))) => {}
            Err(error) => return Err(ColdError::get(&object.key, error)),
        }
        chunks.forget(object, range.clone());
        let bytes = self.get(object, range).await?;
        decode_block(bytes, block).map_err(|cause| segment.corrupt(cause))
    }
}

impl ColdSegment {
    pub(crate) fn corrupt(&self, cause: DecodeError) -> ColdError {
        ColdError::Corrupt { key: self.object.key.clone(), cause }
    }
}
