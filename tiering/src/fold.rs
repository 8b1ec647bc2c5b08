//! Manifest entries that leave the root for an object of their own (TIERING.md 4).

use varve_formats::{
    PartitionIdentity,
    keys::Keys,
    manifest::{FoldPlan, NodeReference},
    node::Node,
};
use varve_objects::{PutError, Store, put_or_confirm};

/// Puts a manifest node and gives the reference that `NodeFolded` proposes. After an error the object may be there:
/// draw another uid.
pub async fn put_node(
    store: &dyn Store,
    keys: &Keys,
    identity: &PartitionIdentity,
    body: FoldPlan,
    uid: u64,
) -> Result<NodeReference, PutError> {
    let (bytes, reference) = Node { identity: identity.clone(), body }.seal(uid);
    let key = keys.node(identity.topic_id, identity.partition, &reference);
    put_or_confirm(store, &key, bytes.into(), reference.sha256).await?;
    Ok(reference)
}
