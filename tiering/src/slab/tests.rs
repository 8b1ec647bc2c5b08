use std::{
    path::Path,
    sync::mpsc::{Receiver, Sender, channel},
    time::Duration,
};

use varve_common::{ObjectKey, clock::BoxFuture, disk::Space};
use varve_wal::testing::{Injected, MemoryDisk, Operation, Target};

use super::*;

const PATH: &str = "/data/cache/chunks.slab";
const FRAME: u64 = 8;

/// Stands still unless told.
#[derive(Default)]
struct HandClock(Mutex<Duration>);

impl Clock for HandClock {
    fn monotonic(&self) -> Monotonic {
        Monotonic(*self.0.lock().unwrap())
    }

    fn wall_ms(&self) -> i64 {
        0
    }

    fn sleep(&self, _: Duration) -> BoxFuture<'static, ()> {
        unreachable!("the slab waits for nothing")
    }
}

fn slab(disk: &MemoryDisk, frames: u64) -> Slab {
    let options = SlabOptions {
        path: PATH.into(),
        frame_bytes: FRAME,
        bytes_max: frames * FRAME + 3,
        admission: Admission::Again,
    };
    Slab::new(Arc::new(disk.clone()), Arc::new(HandClock::default()), options).unwrap()
}

fn id(chunk: u64) -> ChunkId {
    (ObjectKey::new("object".into()), chunk)
}

fn body(chunk: u64) -> Bytes {
    vec![chunk as u8; FRAME as usize - (chunk % 3) as usize].into()
}

#[test]
fn what_was_written_is_read_and_the_file_is_as_long_as_its_frames_from_the_first_on() {
    let disk = MemoryDisk::default();
    let slab = slab(&disk, 4);
    assert!(disk.files().is_empty(), "nobody needs it yet");
    for chunk in 0..4 {
        slab.write(&id(chunk), &body(chunk));
    }
    for chunk in 0..4 {
        assert_eq!(slab.read(&id(chunk)), Some(body(chunk)), "{chunk}");
    }
    assert_eq!(slab.read(&id(9)), None);
    assert_eq!(disk.contents(Path::new(PATH)).len() as u64, 4 * FRAME);
    let counts = slab.counts();
    assert_eq!((counts.hits, counts.written, counts.bytes), (4, 4, 4 * FRAME));
    slab.forget(&id(2));
    assert_eq!(slab.read(&id(2)), None);
}

#[test]
fn fault_28_a_flipped_bit_is_counted_and_never_served() {
    let disk = MemoryDisk::default();
    let slab = slab(&disk, 4);
    (0..4).for_each(|chunk| slab.write(&id(chunk), &body(chunk)));
    for chunk in 0..4 {
        disk.flip_bit(Path::new(PATH), chunk * FRAME * 8 + 5 * chunk);
        assert_eq!(slab.read(&id(chunk)), None, "{chunk}");
        assert_eq!(slab.counts().corrupt, chunk + 1);
        assert_eq!(slab.read(&id(chunk)), None, "it is forgotten");
        slab.write(&id(chunk), &body(chunk));
        assert_eq!(slab.read(&id(chunk)), Some(body(chunk)), "asked of the store again, it is kept again");
    }
    assert_eq!((slab.counts().corrupt, slab.counts().failures, slab.why_off()), (4, 0, None));
}

#[test]
fn a_disk_without_room_makes_no_cache_and_no_error() {
    for full in [true, false] {
        let disk = MemoryDisk::new(if full { 4 * FRAME } else { 1 << 20 });
        if !full {
            // Room in all, but not when the file is made.
            disk.inject_at(
                Target { operation: Operation::Allocate, below: "/data/cache".into(), spared: 0 },
                Injected::Eio,
            );
        }
        let slab = slab(&disk, 4);
        slab.write(&id(1), &body(1));
        assert_eq!(slab.read(&id(1)), None);
        assert!(slab.why_off().is_some_and(|why| why.starts_with("it cannot be made")));
        assert!(disk.files().is_empty(), "nothing is left behind");
        assert!(!slab.wants(&id(1)) && !slab.wants(&id(1)));
    }
}

#[test]
fn of_a_large_disk_no_tenth_is_asked_for() {
    assert_eq!(spared_bytes(40 << 30), 4 << 30);
    assert_eq!(spared_bytes(10 << 40), SLAB_FREE_BYTES);
}

#[test]
fn a_failing_disk_is_passed_by_and_given_up_after_a_few_times() {
    let disk = MemoryDisk::default();
    let slab = slab(&disk, 4);
    (0..4).for_each(|chunk| slab.write(&id(chunk), &body(chunk)));
    disk.fail_reads(Path::new("/data/cache"), 1);
    assert_eq!(slab.read(&id(0)), None);
    assert_eq!(slab.read(&id(1)), Some(body(1)));
    assert_eq!((slab.counts().failures, slab.why_off()), (1, None));
    disk.fail_reads(Path::new("/data/cache"), SLAB_FAILURES_MAX);
    (1..4).for_each(|chunk| assert_eq!(slab.read(&id(chunk)), None));
    assert!(slab.why_off().is_some());
    slab.write(&id(1), &body(1));
    assert_eq!(slab.read(&id(1)), None);
}

#[test]
fn a_slow_disk_is_passed_by_for_a_while() {
    let disk = MemoryDisk::default();
    let clock = Arc::new(HandClock::default());
    let options = SlabOptions {
        path: PATH.into(),
        frame_bytes: FRAME,
        bytes_max: 4 * FRAME,
        admission: Admission::Again,
    };
    let slab = Slab::new(Arc::new(disk), Arc::clone(&clock) as _, options).unwrap();
    slab.write(&id(1), &body(1));
    let began = clock.monotonic();
    {
        let mut inner = slab.lock();
        assert!(inner.enter(began));
        inner.leave(began, began.plus(SLAB_SLOW), None);
    }
    *clock.0.lock().unwrap() = SLAB_SLOW;
    assert_eq!((slab.read(&id(1)), slab.counts().bypassed), (None, 1));
    *clock.0.lock().unwrap() = SLAB_SLOW + SLAB_REST;
    assert_eq!(slab.read(&id(1)), Some(body(1)));
}

#[test]
fn while_enough_are_at_the_file_it_is_passed_by() {
    let slab = slab(&MemoryDisk::default(), 4);
    slab.write(&id(1), &body(1));
    for _ in 0..SLAB_USERS_MAX {
        assert!(slab.lock().enter(Monotonic::default()));
    }
    slab.write(&id(2), &body(2));
    assert_eq!((slab.read(&id(1)), slab.read(&id(2)), slab.counts().bypassed), (None, None, 2));
    for _ in 0..SLAB_USERS_MAX {
        slab.lock().leave(Monotonic::default(), Monotonic::default(), None);
    }
    assert_eq!(slab.read(&id(1)), Some(body(1)));
}

#[test]
fn what_was_given_back_is_gone_from_the_disk() {
    let disk = MemoryDisk::default();
    let slab = slab(&disk, 4);
    slab.write(&id(1), &body(1));
    slab.give_back("the disk is short of room");
    assert!(disk.files().is_empty());
    assert_eq!((slab.read(&id(1)), slab.counts().bytes), (None, 0));
    assert_eq!(slab.why_off().as_deref(), Some("the disk is short of room"));
}

/// A disk that allocates once it is told to, as one does for whom gigabytes take seconds.
struct Held {
    disk: MemoryDisk,
    begun: Mutex<Sender<()>>,
    go_on: Mutex<Receiver<()>>,
}

#[expect(clippy::unimplemented, reason = "a slab asks for nothing else")]
impl Disk for Held {
    /// The file is made last but for its room.
    fn create(&self, path: &Path, access: Access) -> io::Result<Box<dyn DiskFile>> {
        self.begun.lock().unwrap().send(()).unwrap();
        self.go_on.lock().unwrap().recv().unwrap();
        self.disk.create(path, access)
    }

    fn create_directory(&self, path: &Path) -> io::Result<()> {
        self.disk.create_directory(path)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        self.disk.space(path)
    }

    fn open(&self, _: &Path, _: Access) -> io::Result<Box<dyn DiskFile>> {
        unimplemented!()
    }

    fn list(&self, _: &Path) -> io::Result<Vec<String>> {
        unimplemented!()
    }

    fn list_directories(&self, _: &Path) -> io::Result<Vec<String>> {
        unimplemented!()
    }

    fn remove_directory(&self, _: &Path) -> io::Result<()> {
        unimplemented!()
    }

    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        unimplemented!()
    }

    fn rename_new(&self, _: &Path, _: &Path) -> io::Result<()> {
        unimplemented!()
    }

    fn sync_directory(&self, _: &Path) -> io::Result<()> {
        unimplemented!()
    }
}

#[test]
fn while_the_file_is_made_nobody_waits_for_it() {
    for given_back in [false, true] {
        let (begun, begins) = channel();
        let (go_on, goes_on) = channel();
        let memory = MemoryDisk::default();
        let disk = Held { disk: memory.clone(), begun: Mutex::new(begun), go_on: Mutex::new(goes_on) };
        let options = SlabOptions {
            path: PATH.into(),
            frame_bytes: FRAME,
            bytes_max: 4 * FRAME,
            admission: Admission::Again,
        };
        let slab = Slab::new(Arc::new(disk), Arc::new(HandClock::default()), options).unwrap();
        let writer = slab.clone();
        let first = std::thread::spawn(move || writer.write(&id(1), &body(1)));
        begins.recv().unwrap();
        // Each of these is asked for by every cold read: none may end only with the writer.
        assert_eq!((slab.read(&id(1)), slab.wants(&id(2)), slab.why_off()), (None, false, None));
        slab.write(&id(2), &body(2));
        assert_eq!((slab.counts().bypassed, slab.counts().written), (1, 0));
        if given_back {
            slab.give_back("the disk runs short");
        }
        go_on.send(()).unwrap();
        first.join().unwrap();
        assert_eq!(slab.read(&id(1)).is_some(), !given_back);
        assert_eq!(memory.files().is_empty(), given_back);
        assert_eq!(slab.why_off().is_some(), given_back);
    }
}
