//! Cold reads: what the bucket's readers stand on.

use std::{io, sync::Arc, time::Duration};

use varve_common::disk::Space;
use varve_formats::keys::Keys;
use varve_objects::Class;
use varve_tiering::{
    Admission, ChunkCache, ColdOptions, ColdReader, Slab, SlabOptions, chunks, limits::CHUNK_BYTES,
};

use super::{background::Background, process::Base};

/// The file of the disk cache, in its directory.
const SLAB_FILE: &str = "chunks.slab";
/// How often the disk is looked at for its sake.
const INTERVAL: Duration = Duration::from_secs(5);
/// It is given back when less than this part of the disk is free: one in so many,
const FREE_SHARE_MIN: u64 = 20;
/// and less than so many bytes: what a large disk has left may be much.
const FREE_BYTES_ENOUGH: u64 = 4 << 30;

/// The reader of the bucket, with its caches.
pub(super) fn reader(base: &Base, keys: Keys) -> io::Result<ColdReader> {
    let memory = base.config.memory;
    let options = chunks::Options { chunk_bytes: CHUNK_BYTES, bytes_max: memory.chunks as usize };
    let cold = ColdOptions { index_bytes_max: memory.indices as usize, ..ColdOptions::default() };
    let store = base.tier.stores.of(Class::ClientRead);
    let chunks = ChunkCache::new(Arc::clone(&store), Arc::new(Background(base.cold.clone())), options);
    Ok(ColdReader::new(store, keys, chunks.with_slab(slab(base)?), cold))
}

fn slab(base: &Base) -> io::Result<Option<Slab>> {
    let path = base.layout.cache.join(SLAB_FILE);
    // It begins empty: what an earlier life left is of no use, and the disk may want it now.
    match base.disk.remove(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(%error, "the cache of an earlier start stays on disk");
        }
        _ => {}
    }
    let bytes_max = base.config.cold_cache_disk_bytes(base.disk.space(&base.layout.root)?.total_bytes);
    let options = SlabOptions { path, frame_bytes: CHUNK_BYTES, bytes_max, admission: Admission::Again };
    Ok(Slab::new(Arc::clone(&base.disk), Arc::clone(&base.clock), options))
}

/// Gives the disk cache back when the disk runs short, and tells when there is none, until it is dropped.
pub(super) fn watch(base: &Base, slab: Option<Slab>) -> impl Future<Output = ()> + Send + use<> {
    let (disk, clock, data) = (Arc::clone(&base.disk), Arc::clone(&base.clock), base.layout.root.clone());
    let is_short = move || {
        let short =
            |space: Space| space.free_bytes < (space.total_bytes / FREE_SHARE_MIN).min(FREE_BYTES_ENOUGH);
        disk.space(&data).is_ok_and(short)
    };
    async move {
        let Some(slab) = slab else { return };
        while slab.why_off().is_none() {
            clock.sleep(INTERVAL).await;
            if is_short() && slab.counts().bytes > 0 {
                slab.give_back("the disk runs short");
            }
        }
        let why = slab.why_off();
        tracing::warn!(why, "cold chunks are not kept on disk until the next start");
    }
}
