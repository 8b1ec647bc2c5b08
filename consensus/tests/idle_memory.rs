//! What an idle group of one costs, in bytes of heap.
#![allow(unsafe_code)] // a global allocator cannot be written without; it only counts

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use varve_common::{GroupId, NodeId, ReplicaId};
use varve_consensus::{Group, GroupConfig, MultiRaft, Recovered};

static HELD: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(layout.size(), Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

const GROUPS: usize = 1000;

/// Writes and applies everything.
fn settle(groups: &mut MultiRaft) {
    while let Some((id, ready)) = groups.next_ready() {
        groups.update(id, |group| {
            if ready.persist.is_some() {
                group.persisted(ready.number);
            }
            if let Some(last) = ready.committed.last() {
                group.applied(last.index);
            }
        });
    }
}

#[test]
fn an_idle_group_of_one_holds_well_under_16_kib_even_after_a_burst() {
    let replica = ReplicaId::new(NodeId::new(1).unwrap(), 1).unwrap();
    let before = HELD.load(Ordering::Relaxed);
    let mut groups = MultiRaft::new();
    for id in 0..GROUPS {
        let recovered = Recovered::new(replica, vec![replica].into());
        groups.insert(GroupId(id as u64), Group::open(recovered, GroupConfig::default()).unwrap());
    }
    settle(&mut groups);
    let fresh = (HELD.load(Ordering::Relaxed) - before) / GROUPS;
    for id in 0..GROUPS {
        for _ in 0..100 {
            groups.update(GroupId(id as u64), |group| group.propose(Bytes::from(vec![1; 100])).unwrap());
        }
    }
    settle(&mut groups);
    let used = (HELD.load(Ordering::Relaxed) - before) / GROUPS;
    println!("an idle group of one: {fresh} bytes when new, {used} bytes after 100 entries");
    assert_eq!(groups.ticking(), 0);
    assert!(fresh < 8 << 10 && used < 8 << 10, "{fresh} {used}");
}
