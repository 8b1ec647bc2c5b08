//! What moves between nodes beside logs, in production: the way to ask for it, who answers, and what is counted.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::runtime::Handle;
use varve_common::{Clock, GroupId, NodeId, clock::BoxFuture};
use varve_replica::PeerInput;
use varve_tiering::LocalSegments;

use super::{
    mailbox::{Mail, Mailbox},
    process::{Base, Core},
};
use crate::{
    metrics::Handles,
    peers::Peers,
    transfer::{
        Library, Reply, TransferCounts, TransferOptions, Transfers, Way,
        limits::{PIECE_BYTES, PIECE_PATIENCE},
    },
};

/// Over connections of their own, beside messages and calls.
struct PeerWay(Peers);

impl Way for PeerWay {
    fn ask(&self, node: NodeId, request: Bytes) -> BoxFuture<'static, Result<Bytes, String>> {
        let peers = self.0.clone();
        Box::pin(async move {
            let reply = peers.ask_piece(node, request, PIECE_PATIENCE).await;
            reply.map_err(|error| error.to_string())
        })
    }
}

fn options(base: &Base) -> TransferOptions {
    TransferOptions { bytes_per_second: base.config.move_rate, piece_bytes: PIECE_BYTES }
}

/// What jobs of this node bring from others.
pub(super) fn transfers(base: &Base) -> Transfers {
    let way = base.place.as_ref().map(|place| Arc::new(PeerWay(place.peers.clone())) as Arc<dyn Way>);
    Transfers::new(way, options(base), Arc::clone(&base.clock))
}

/// Answers other nodes, in the background.
pub struct Lender {
    library: Arc<Library>,
    mailbox: Mailbox,
    background: Handle,
}

impl Lender {
    /// Over the files of this node.
    pub(super) fn new(base: &Base, core: &Core) -> Self {
        let (disk, data, local) = (Arc::clone(&base.disk), base.layout.root.clone(), core.local.clone());
        let library = Library::new(disk, data, local, options(base), Arc::clone(&base.clock));
        let mailbox = core.backend.mailbox.clone();
        Self { library: Arc::new(library), mailbox, background: base.cold.clone() }
    }

    /// A piece, or that there is none; no reply where the node stops.
    pub fn answer(&self, request: Bytes) -> BoxFuture<'static, Bytes> {
        let (library, mailbox) = (Arc::clone(&self.library), self.mailbox.clone());
        // Disks are read there, and whoever serves clients does not wait for them.
        let answer = self.background.spawn(async move {
            let Ok(request) = Library::read(request) else { return Reply::NotUnderstood };
            let group = request.group;
            let held = mailbox.look(move |driver| driver.shard().holdings(group)).await.ok().flatten();
            if held.as_ref().is_some_and(|held| Library::is_on_the_way(&request, held)) {
                mailbox.send(Mail::Peer(PeerInput::Leased { group }, None));
            }
            library.answer(request, held).await
        });
        Box::pin(async move { answer.await.unwrap_or(Reply::NotHere).encode() })
    }
}

/// How often it is looked whether sealed files are where their marks say.
const LOOK_INTERVAL: Duration = Duration::from_secs(30);

/// Looks for sealed files that are gone, or of another length, until it is dropped: a file that nobody reads would be missed when it
/// is needed. What is inside them is the scrub's to read.
pub(super) fn watch_files(base: &Base, core: &Core) -> impl Future<Output = ()> + Send + use<> {
    look_at_all(core.backend.mailbox.clone(), core.local.clone(), Arc::clone(&base.clock))
}

async fn look_at_all(mailbox: Mailbox, local: LocalSegments, clock: Arc<dyn Clock>) {
    loop {
        clock.sleep(LOOK_INTERVAL).await;
        let groups = mailbox.look(|driver| driver.shard().groups()).await.unwrap_or_default();
        for group in groups {
            look_at(&mailbox, &local, group).await;
        }
    }
}

async fn look_at(mailbox: &Mailbox, local: &LocalSegments, group: GroupId) {
    let seals = |held: varve_replica::Holdings| held.seals;
    let held = mailbox.look(move |driver| driver.shard().holdings(group).map(seals)).await;
    for seal in held.ok().flatten().unwrap_or_default().iter() {
        if let Err(damaged) = local.look_for(group, seal) {
            // Between the look at the group and the one at the disk it may have let go of it: the group knows.
            tracing::debug!(%group, %damaged, "a sealed file is not what its mark says");
        }
    }
}

/// Counts what came since `last`.
pub(super) fn count(handles: &Handles, transfers: &Transfers, last: &mut TransferCounts) {
    let counts = transfers.counts();
    let from = |source| handles.bootstrap_bytes.get_or_create(&[("source", source)]);
    from("peer").inc_by(counts.received - last.received);
    from("bucket").inc_by(counts.from_bucket - last.from_bucket);
    handles.bootstrap_files.inc_by(counts.files - last.files);
    handles.bootstrap_moves.set(counts.moves as i64);
    handles.bootstrap_lacking.set(counts.lacking as i64);
    *last = counts;
}
