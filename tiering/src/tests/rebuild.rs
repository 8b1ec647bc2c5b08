//! Leaves of the manifest, made again.

use bytes::Bytes;
use varve_common::Offset;
use varve_formats::{manifest::FoldPlan, node};
use varve_objects::{Operation, Store as _, testing::Fault};

use super::support::{Node, TERM, read_all};
use crate::{RebuildError, UploadKey, put_node, rebuild_leaf};

/// Eight segments in the bucket, the first four of which a leaf names.
fn folded() -> Node {
    let mut node = Node::all_cold(8, 2, 100);
    let plan = node.root.plan_fold(varve_formats::manifest::FanOut(4)).unwrap();
    let uid = node.uid();
    let put = put_node(&*node.counting, &node.keys, &node.identity, plan, uid);
    let reference = node.executor.run(put).unwrap();
    std::sync::Arc::make_mut(&mut node.root).fold(&reference).unwrap();
    node
}

fn rebuilt(node: &Node) -> Result<node::Node, RebuildError> {
    let leaf = &node.root.nodes[0];
    node.executor.run(rebuild_leaf(&*node.store, &node.keys, &node.identity, leaf))
}

fn leaf_key(node: &Node) -> varve_common::ObjectKey {
    node.keys.node(node.identity.topic_id, node.identity.partition, &node.root.nodes[0])
}

#[test]
fn row_60_a_leaf_is_made_again_byte_for_byte_whatever_else_is_in_its_range() {
    let mut node = folded();
    let key = leaf_key(&node);
    let was = node.executor.run(node.store.get(&key)).unwrap();
    node.executor.run(node.store.delete(&key)).unwrap();
    // A merge of two of them, one of three that came to nothing, and a second upload of one: none is named.
    let FoldPlan::Leaf(entries) = rebuilt(&node).unwrap().body else { panic!() };
    for run in [0..2, 1..4] {
        let key = UploadKey { term: TERM, uid: node.uid() };
        node.executor.run(node.uploader.merge(&node.identity, &entries[run], key)).unwrap();
    }
    let object = node.keys.entry(node.identity.topic_id, node.identity.partition, &entries[2]).unwrap();
    let body = node.executor.run(node.store.get(&object)).unwrap();
    let twin = varve_formats::manifest::Entry { uid: 9_999, ..entries[2].clone() };
    let twin = node.keys.entry(node.identity.topic_id, node.identity.partition, &twin).unwrap();
    node.store.inner().tamper(&twin, body);

    let again = rebuilt(&node).unwrap();
    assert_eq!(again.to_bytes(), was);
    // And the one under a new key serves.
    let uid = node.uid();
    let put = put_node(&*node.counting, &node.keys, &node.identity, again.body, uid);
    let reference = node.executor.run(put).unwrap();
    let removed = node.root.nodes[0].uid;
    std::sync::Arc::make_mut(&mut node.root).replace_leaf(removed, &reference, &[], &[]).unwrap();
    assert_eq!(read_all(&node, Offset(0), 1_000).unwrap(), node.expected(Offset(0)));
}

#[test]
fn s4_what_is_not_the_leaf_is_no_answer() {
    let node = folded();
    let FoldPlan::Leaf(entries) = rebuilt(&node).unwrap().body else { panic!() };
    let object = node.keys.entry(node.identity.topic_id, node.identity.partition, &entries[1]).unwrap();
    let body = node.executor.run(node.store.get(&object)).unwrap();

    let mut flipped = body.to_vec();
    flipped[30] ^= 1;
    node.store.inner().tamper(&object, flipped.into());
    assert!(matches!(rebuilt(&node), Err(RebuildError::Damaged { key, .. }) if key == object));
    node.store.inner().tamper(&object, Bytes::from_static(b"short"));
    assert_eq!(rebuilt(&node), Err(RebuildError::Incomplete));
    node.executor.run(node.store.delete(&object)).unwrap();
    assert_eq!(rebuilt(&node), Err(RebuildError::Incomplete));
    node.store.inner().tamper(&object, body);
    assert!(rebuilt(&node).is_ok());

    let mut other = node.root.nodes[0].clone();
    other.sha256.0[0] ^= 1;
    let found = node.executor.run(rebuild_leaf(&*node.store, &node.keys, &node.identity, &other));
    assert_eq!(found, Err(RebuildError::Different));
    for operation in [Operation::List, Operation::Get] {
        node.store.script(operation, Fault::ErrorBefore);
        assert!(matches!(rebuilt(&node), Err(RebuildError::Store(_))));
    }
}
