//! Which log counts as the one that was there.

#![allow(clippy::disallowed_methods, reason = "what befalls a disk is done to it from outside")]

use std::fs;

use varve_common::{ClusterId, Incarnation, NodeId, ReplicaId};
use varve_wal::NativeDisk;

use super::*;
use crate::runtime::clock::SystemEntropy;

struct Node {
    _folder: tempfile::TempDir,
    layout: Layout,
}

impl Node {
    /// A directory in which a node has an identity, and no log yet.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::below(folder.path());
        layout.create(&NativeDisk).unwrap();
        Self { _folder: folder, layout }
    }

    fn look(&self) -> Standing {
        look(&NativeDisk, &self.layout, &SystemEntropy::default()).unwrap()
    }

    fn found(&self) {
        let (cluster, node) = (ClusterId::from_random(1), NodeId::new(1).unwrap());
        let identity = Identity { cluster, incarnation: Incarnation::FIRST, node };
        identity.store(&NativeDisk, &self.layout.root).unwrap();
    }

    /// Writes a file as the log does.
    fn write_log(&self) {
        fs::write(self.layout.wal.join("0000000000000001.wal"), b"log").unwrap();
    }

    fn bear(&self, standing: Standing) {
        self.write_log();
        bear(&NativeDisk, &self.layout, standing).unwrap();
    }

    /// One that has run.
    fn used() -> Self {
        let node = Self::new();
        let unborn = node.look();
        node.found();
        node.bear(unborn);
        assert_eq!(node.look(), Standing::Whole);
        node
    }
}

#[test]
fn a_log_gets_its_number_once_and_a_crash_before_that_begins_again() {
    let node = Node::new();
    let unborn = node.look();
    assert!(matches!(unborn, Standing::Unborn(_)));
    node.found();
    // However far it came: nothing was counted on yet.
    assert_eq!(node.look(), unborn);
    node.write_log();
    assert_eq!(node.look(), unborn);
    node.bear(unborn);
    assert_eq!(node.look(), Standing::Whole);
}

#[test]
fn fault_29_a_log_that_was_wiped_or_is_another_is_lost() {
    let wiped = Node::used();
    fs::remove_dir_all(&wiped.layout.wal).unwrap();
    wiped.layout.create(&NativeDisk).unwrap();
    assert_eq!(wiped.look(), Standing::Lost);
    let (mine, other) = (Node::used(), Node::used());
    fs::copy(other.layout.wal.join(FILE), mine.layout.wal.join(FILE)).unwrap();
    assert_eq!(mine.look(), Standing::Lost);
    // Somebody else's disk under a new directory.
    let new = Node::new();
    fs::remove_dir(&new.layout.wal).unwrap();
    fs::rename(&other.layout.wal, &new.layout.wal).unwrap();
    let refused = look(&NativeDisk, &new.layout, &SystemEntropy::default());
    assert!(matches!(refused, Err(BirthError::Foreign(_))), "{refused:?}");
}

#[test]
fn fault_27_a_log_without_its_files_or_with_a_damaged_number_is_lost() {
    let emptied = Node::used();
    fs::remove_file(emptied.layout.wal.join("0000000000000001.wal")).unwrap();
    assert_eq!(emptied.look(), Standing::Lost);
    for folder in [|node: &Node| node.layout.wal.clone(), |node: &Node| node.layout.root.clone()] {
        let node = Node::used();
        let path = folder(&node).join(FILE);
        let mut bytes = fs::read(&path).unwrap();
        bytes[7] ^= 1;
        fs::write(&path, bytes).unwrap();
        assert_eq!(node.look(), Standing::Lost);
        fs::remove_file(&path).unwrap();
        assert_eq!(node.look(), Standing::Lost);
    }
}

#[test]
fn a_directory_of_an_earlier_release_opens_where_it_has_a_log() {
    let node = Node::new();
    node.found();
    node.write_log();
    // From the first look on it is missed.
    assert_eq!((node.look(), node.look()), (Standing::Whole, Standing::Whole));
    fs::remove_file(node.layout.wal.join("0000000000000001.wal")).unwrap();
    assert_eq!(node.look(), Standing::Lost);
    let without = Node::new();
    without.found();
    assert_eq!(without.look(), Standing::Lost);
}

#[test]
fn a_log_of_another_directory_is_none_that_is_about_to_be_made() {
    let (new, other) = (Node::new(), Node::used());
    assert!(matches!(new.look(), Standing::Unborn(_)));
    fs::remove_dir(&new.layout.wal).unwrap();
    fs::rename(&other.layout.wal, &new.layout.wal).unwrap();
    let refused = look(&NativeDisk, &new.layout, &SystemEntropy::default());
    assert!(matches!(refused, Err(BirthError::Foreign(_))), "{refused:?}");
}

#[test]
fn a_log_that_was_mounted_late_is_whole_and_one_that_was_given_up_is_refused() {
    let node = Node::used();
    let away = node.layout.root.join("away");
    fs::rename(&node.layout.wal, &away).unwrap();
    node.layout.create(&NativeDisk).unwrap();
    assert_eq!(node.look(), Standing::Lost);
    assert_eq!(node.look(), Standing::Lost, "looking gives nothing up");
    fs::remove_dir(&node.layout.wal).unwrap();
    fs::rename(&away, &node.layout.wal).unwrap();
    assert_eq!(node.look(), Standing::Whole);
    // The same after it was given up.
    fs::rename(&node.layout.wal, &away).unwrap();
    node.layout.create(&NativeDisk).unwrap();
    let given_up = GivenUp { cluster: ClusterId::from_random(1), disk: 7, replica: None };
    give_up(&NativeDisk, &node.layout, &SystemEntropy::default(), &given_up).unwrap();
    fs::remove_dir(&node.layout.wal).unwrap();
    fs::rename(&away, &node.layout.wal).unwrap();
    let refused = look(&NativeDisk, &node.layout, &SystemEntropy::default());
    assert!(matches!(refused, Err(BirthError::Foreign(_))), "{refused:?}");
}

#[test]
fn who_gives_its_log_up_keeps_what_was_beside_it_apart_and_begins_anew() {
    let node = Node::used();
    let replica = ReplicaId::new(NodeId::new(1).unwrap(), 2).unwrap();
    let segment = node.layout.segments.join("0000000000000001").join("a.seg");
    fs::create_dir(segment.parent().unwrap()).unwrap();
    fs::write(&segment, b"records").unwrap();
    fs::remove_file(node.layout.wal.join(FILE)).unwrap();
    assert_eq!(node.look(), Standing::Lost);
    let cluster = ClusterId::from_random(1);
    joining::store(&NativeDisk, &node.layout.root, cluster, replica).unwrap();
    // However often it ends in the middle; and as an earlier release does it, which has its place by then.
    for granted in [None, None, Some(replica)] {
        let given_up = GivenUp { cluster, disk: 7, replica: granted };
        small_file::replace(&NativeDisk, &node.layout.root, REJOINED, &given_up.encode()).unwrap();
        assert_eq!(super::given_up(&NativeDisk, &node.layout).unwrap(), Some(given_up));
        begin_again(&NativeDisk, &node.layout, &SystemEntropy::default(), &given_up).unwrap();
        let has_joined = joining::has_joined(&NativeDisk, &node.layout.root).unwrap();
        assert_eq!(has_joined, granted.is_some());
    }
    assert_eq!(super::given_up(&NativeDisk, &node.layout).unwrap(), None);
    let unborn = node.look();
    assert!(matches!(unborn, Standing::Unborn(_)));
    let asides: Vec<_> =
        fs::read_dir(node.layout.root.join(LOST)).unwrap().map(|aside| aside.unwrap().path()).collect();
    let aside = &asides[0];
    assert!(aside.join("segments/0000000000000001/a.seg").exists() && !segment.exists());
    assert!(aside.join("wal/0000000000000001.wal").exists());
    node.bear(unborn);
    assert_eq!(node.look(), Standing::Whole);
}

#[test]
fn a_second_loss_of_a_log_that_is_a_mount_leaves_what_was_set_aside_of_the_first() {
    let node = Node::new();
    for (loss, bytes) in [("first", &b"one"[..]), ("second", b"two")] {
        let name = "0000000000000001.wal";
        fs::write(node.layout.wal.join(name), bytes).unwrap();
        move_files(&NativeDisk, &node.layout.wal, loss).unwrap();
        assert!(!node.layout.wal.join(name).exists());
    }
    let left = |loss: &str| fs::read(node.layout.wal.join(LOST).join(loss).join("0000000000000001.wal"));
    assert_eq!((left("first").unwrap(), left("second").unwrap()), (b"one".to_vec(), b"two".to_vec()));
}
