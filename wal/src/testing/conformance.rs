//! What every disk must do: run against the real one and against every fake.

use std::{io::ErrorKind, path::Path};

use varve_common::{Access, Disk, disk::read_exact_at};

/// Panics where `disk` breaks a promise of [`Disk`] or [`varve_common::DiskFile`]. `root` is a directory to work in.
pub fn disk_conformance(disk: &dyn Disk, root: &Path) {
    names_are_made_listed_and_removed(disk, &root.join("names"));
    renames_replace_only_when_told(disk, &root.join("renames"));
    files_read_back_what_was_written(disk, &root.join("files"));
    errors_have_their_kind(disk, &root.join("errors"));
    let space = disk.space(root).expect("space is known");
    assert!(space.free_bytes <= space.total_bytes && space.total_bytes > 0);
}

fn kind<T>(result: std::io::Result<T>) -> ErrorKind {
    result.err().expect("this must fail").kind()
}

fn names_are_made_listed_and_removed(disk: &dyn Disk, at: &Path) {
    disk.create_directory(&at.join("a/b")).expect("nested directories are made");
    disk.create_directory(&at.join("a/b")).expect("an existing directory is fine");
    for name in ["z", "b", "a.x"] {
        disk.create(&at.join(name), Access::Buffered).expect("a new file is made");
    }
    disk.sync_directory(at).expect("names are synced");
    assert_eq!(disk.list(at).expect("listed"), ["a.x", "b", "z"]);
    assert_eq!(disk.list_directories(at).expect("listed"), ["a"]);
    disk.remove(&at.join("b")).expect("removed");
    assert_eq!(disk.list(at).expect("listed"), ["a.x", "z"]);
    assert_ne!(kind(disk.remove_directory(&at.join("a"))), ErrorKind::NotFound);
    disk.remove_directory(&at.join("a/b")).expect("an empty directory goes");
    disk.remove_directory(&at.join("a")).expect("an empty directory goes");
    assert!(disk.list_directories(at).expect("listed").is_empty());
}

fn renames_replace_only_when_told(disk: &dyn Disk, at: &Path) {
    disk.create_directory(at).expect("made");
    for name in ["one", "two"] {
        let file = disk.create(&at.join(name), Access::Buffered).expect("made");
        file.write_at(name.as_bytes(), 0).expect("written");
    }
    let read = |name: &str| {
        let file = disk.open(&at.join(name), Access::Buffered).expect("opened");
        read_exact_at(&*file, 0, 3).expect("read")
    };
    assert_eq!(kind(disk.rename_new(&at.join("one"), &at.join("two"))), ErrorKind::AlreadyExists);
    assert_eq!((read("one"), read("two")), (b"one".to_vec(), b"two".to_vec()));
    disk.rename_new(&at.join("one"), &at.join("three")).expect("a free name is taken");
    assert_eq!(disk.list(at).expect("listed"), ["three", "two"]);
    disk.rename(&at.join("three"), &at.join("two")).expect("a name is replaced");
    assert_eq!((disk.list(at).expect("listed"), read("two")), (vec!["two".to_owned()], b"one".to_vec()));
    assert_eq!(kind(disk.rename(&at.join("none"), &at.join("x"))), ErrorKind::NotFound);
    assert_eq!(kind(disk.rename_new(&at.join("none"), &at.join("x"))), ErrorKind::NotFound);
}

fn files_read_back_what_was_written(disk: &dyn Disk, at: &Path) {
    disk.create_directory(at).expect("made");
    let file = disk.create(&at.join("file"), Access::Buffered).expect("made");
    assert_eq!(file.len().expect("known"), 0);
    file.allocate(10_000).expect("allocated");
    assert_eq!(file.len().expect("known"), 10_000);
    assert_eq!(read_exact_at(&*file, 0, 10_000).expect("read"), vec![0; 10_000]);
    file.write_at(b"hello", 9_998).expect("a write grows the file");
    assert_eq!(file.len().expect("known"), 10_003);
    let mut buffer = [1; 8];
    assert_eq!(file.read_at(&mut buffer, 9_997).expect("read"), 6);
    assert_eq!(&buffer[..6], b"\0hello");
    assert_eq!(file.read_at(&mut buffer, 20_000).expect("behind the end is nothing"), 0);
    assert_eq!(kind(read_exact_at(&*file, 10_000, 4)), ErrorKind::UnexpectedEof);
    file.allocate(5).expect("less than there is changes nothing");
    assert_eq!(file.len().expect("known"), 10_003);
    file.set_len(3).expect("cut");
    file.set_len(6).expect("extended");
    assert_eq!(read_exact_at(&*file, 0, 6).expect("read"), vec![0; 6]);
    file.sync_data().expect("synced");
    disk.sync_directory(at).expect("synced");
    let again = disk.open(&at.join("file"), Access::Buffered).expect("opened twice");
    again.write_at(b"x", 1).expect("written");
    assert_eq!(read_exact_at(&*file, 0, 3).expect("one file, two handles"), b"\0x\0");
    disk.remove(&at.join("file")).expect("removed");
    assert_eq!(read_exact_at(&*file, 0, 3).expect("an open file outlives its name"), b"\0x\0");
}

fn errors_have_their_kind(disk: &dyn Disk, at: &Path) {
    disk.create_directory(at).expect("made");
    assert_eq!(kind(disk.open(&at.join("none"), Access::Buffered)), ErrorKind::NotFound);
    assert_eq!(kind(disk.remove(&at.join("none"))), ErrorKind::NotFound);
    assert_eq!(kind(disk.list(&at.join("none"))), ErrorKind::NotFound);
    assert_eq!(kind(disk.create(&at.join("none/file"), Access::Buffered)), ErrorKind::NotFound);
    disk.create(&at.join("file"), Access::Buffered).expect("made");
    assert_eq!(kind(disk.create(&at.join("file"), Access::Buffered)), ErrorKind::AlreadyExists);
}
