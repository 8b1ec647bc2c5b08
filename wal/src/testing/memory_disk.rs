//! A disk in memory with two states: what a running process sees, and what a power cut leaves.
//!
//! Data is durable after `sync_data`, names after `sync_directory`. What was not synced is kept per write; a power
//! cut keeps any subset of it by 512-byte sectors, and any subset of the unsynced names, drawn from a seed.

mod counts;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use varve_common::{Access, Disk, DiskFile, disk::Space};

use super::{
    memory_file::MemoryFile,
    script::{Injected, Operation, ReadErrors, Target},
};

const SECTOR: u64 = 512;

/// A disk in memory; clones share it.
#[derive(Clone)]
pub struct MemoryDisk {
    tree: Arc<Mutex<Tree>>,
}

#[derive(Default)]
pub(super) struct Tree {
    /// Names as a process sees them, and as a power cut leaves them.
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    directories: BTreeSet<PathBuf>,
    pub inodes: BTreeMap<u64, Inode>,
    next_inode: u64,
    total_bytes: u64,
    operations: u64,
    pub syncs: u64,
    pub bytes_read: u64,
    plan: BTreeMap<u64, Injected>,
    targets: Vec<(Target, Injected)>,
    pub read_errors: ReadErrors,
    dead: bool,
    died_in: Option<(Operation, PathBuf)>,
}

#[derive(Clone, Default)]
pub(super) struct Inode {
    pub bytes: Vec<u8>,
    /// Sectors changed since the last sync, with what is durable of them.
    unsynced: BTreeMap<u64, [u8; SECTOR as usize]>,
    /// Likewise those of a sync that failed: the kernel calls them clean, and no later sync writes them (ATC '20).
    lost: BTreeMap<u64, [u8; SECTOR as usize]>,
    durable_length: u64,
    pub open: usize,
}

impl Inode {
    /// Remembers the durable content of the sectors that a change of `from..to` touches.
    pub fn touch(&mut self, from: u64, to: u64) {
        for sector in from / SECTOR..to.div_ceil(SECTOR) {
            if let Some(old) = self.lost.remove(&sector) {
                self.unsynced.insert(sector, old);
            }
            let bytes = &self.bytes;
            self.unsynced.entry(sector).or_insert_with(|| {
                let mut old = [0; SECTOR as usize];
                let start = ((sector * SECTOR) as usize).min(bytes.len());
                let end = (start + SECTOR as usize).min(bytes.len());
                old[..end - start].copy_from_slice(&bytes[start..end]);
                old
            });
        }
    }

    /// A sync failed.
    pub fn lose(&mut self) {
        self.lost.append(&mut self.unsynced);
    }

    pub fn sync(&mut self) {
        self.unsynced.clear();
        self.durable_length = self.bytes.len() as u64;
    }

    /// What a power cut leaves: each unsynced sector old or new, the length durable or (as likely) the seen one.
    fn cut(&self, random: &mut ChaCha8Rng) -> Self {
        let mut bytes = self.bytes.clone();
        // All, nothing, or any mixture: mixtures alone would rarely leave a whole batch.
        let keep = [0.0, 0.5, 0.9, 1.0][random.random_range(0..4)];
        for (sector, old) in self.unsynced.iter().chain(&self.lost) {
            if random.random_bool(keep) {
                continue;
            }
            let start = ((sector * SECTOR) as usize).min(bytes.len());
            let end = (start + SECTOR as usize).min(bytes.len());
            bytes[start..end].copy_from_slice(&old[..end - start]);
        }
        if self.durable_length != bytes.len() as u64 && !random.random_bool(keep) {
            bytes.resize(self.durable_length as usize, 0);
        }
        let durable_length = bytes.len() as u64;
        Self { bytes, durable_length, ..Self::default() }
    }
}

impl Default for MemoryDisk {
    fn default() -> Self {
        Self::new(1 << 40)
    }
}

impl MemoryDisk {
    /// An empty disk of this size.
    #[must_use]
    pub fn new(total_bytes: u64) -> Self {
        let mut directories = BTreeSet::new();
        directories.insert(PathBuf::from("/"));
        directories.insert(PathBuf::new());
        let tree = Tree { total_bytes, directories, ..Tree::default() };
        Self { tree: Arc::new(Mutex::new(tree)) }
    }

    fn lock(&self) -> MutexGuard<'_, Tree> {
        self.tree.lock().expect("no holder of this lock panics")
    }

    /// The disk after a power cut now; this one, still held by whoever wrote to it, fails from here on.
    #[must_use]
    pub fn power_cut(&self, seed: u64) -> Self {
        let mut tree = self.lock();
        tree.dead = true;
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let names = cut_names(&tree, &mut random);
        let kept: BTreeSet<u64> = names.values().copied().collect();
        let inodes =
            kept.iter().filter_map(|id| Some((*id, tree.inodes.get(id)?.cut(&mut random)))).collect();
        let cut = Tree {
            durable_names: names.clone(),
            names,
            directories: tree.directories.clone(),
            inodes,
            next_inode: tree.next_inode,
            total_bytes: tree.total_bytes,
            ..Tree::default()
        };
        Self { tree: Arc::new(Mutex::new(cut)) }
    }

    /// The disk after the process was killed: all that was written is there. This one fails from here on.
    #[must_use]
    pub fn process_kill(&self) -> Self {
        let mut tree = self.lock();
        tree.dead = true;
        let tree = Tree {
            names: tree.names.clone(),
            durable_names: tree.durable_names.clone(),
            directories: tree.directories.clone(),
            inodes: tree.inodes.clone(),
            next_inode: tree.next_inode,
            total_bytes: tree.total_bytes,
            ..Tree::default()
        };
        Self { tree: Arc::new(Mutex::new(tree)) }
    }

    /// Makes the operation with this number (see [`MemoryDisk::operations`]) misbehave. Counted are those that change
    /// something: create, write, allocate, set_len, sync, rename, remove.
    pub fn inject(&self, operation: u64, what: Injected) {
        self.lock().plan.insert(operation, what);
    }

    /// Makes an operation of this kind in this place misbehave.
    pub fn inject_at(&self, target: Target, what: Injected) {
        self.lock().targets.push((target, what));
    }

    /// Lets the next reads of files below `directory` fail as those of a broken disk do, this many of them.
    pub fn fail_reads(&self, directory: &Path, count: u32) {
        self.lock().read_errors.plan(directory, count);
    }

    /// Forgets what was to go wrong.
    pub fn forget_faults(&self) {
        let mut tree = self.lock();
        tree.plan.clear();
        tree.targets.clear();
        tree.read_errors.plan(Path::new("/"), 0);
    }

    /// In which operation the machine died, if it did: [`Injected::Dies`].
    #[must_use]
    pub fn died_in(&self) -> Option<(Operation, PathBuf)> {
        self.lock().died_in.clone()
    }

    /// Whether it lost its power, or its process was killed.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.lock().dead
    }

    /// Every file with its bytes as a process sees them.
    #[must_use]
    pub fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let tree = self.lock();
        tree.names.iter().map(|(path, id)| (path.clone(), tree.inodes[id].bytes.clone())).collect()
    }

    /// Changes the disk's size, for disks that fill and empty again.
    pub fn resize(&self, total_bytes: u64) {
        self.lock().total_bytes = total_bytes;
    }

    /// Flips one bit, durably, as rot does.
    pub fn flip_bit(&self, path: &Path, bit: u64) {
        let mut tree = self.lock();
        let id = tree.names[path];
        let inode = tree.inodes.get_mut(&id).expect("a name has its inode");
        inode.bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
    }

    /// Overwrites bytes durably, behind everybody's back.
    pub fn overwrite(&self, path: &Path, position: u64, bytes: &[u8]) {
        let mut tree = self.lock();
        let id = tree.names[path];
        let inode = tree.inodes.get_mut(&id).expect("a name has its inode");
        inode.bytes[position as usize..position as usize + bytes.len()].copy_from_slice(bytes);
    }

    /// A file's bytes as a process sees them.
    #[must_use]
    pub fn contents(&self, path: &Path) -> Vec<u8> {
        let tree = self.lock();
        tree.inodes[&tree.names[path]].bytes.clone()
    }
}

/// Which names a power cut leaves: per directory entry, the durable state or the newer one. A rename is atomic: both
/// its names go the same way.
fn cut_names(tree: &Tree, random: &mut ChaCha8Rng) -> BTreeMap<PathBuf, u64> {
    let mut choice: BTreeMap<u64, bool> = BTreeMap::new();
    let keep = [0.0, 0.5, 1.0][random.random_range(0..3)];
    let paths: BTreeSet<&PathBuf> = tree.names.keys().chain(tree.durable_names.keys()).collect();
    let mut names = BTreeMap::new();
    for path in paths {
        let (new, old) = (tree.names.get(path), tree.durable_names.get(path));
        let kept = if new == old {
            new
        } else {
            let id = *new.or(old).expect("the path is in one of them");
            let newer = *choice.entry(id).or_insert_with(|| random.random_bool(keep));
            if newer { new } else { old }
        };
        if let Some(id) = kept {
            names.insert(path.clone(), *id);
        }
    }
    names
}

impl Tree {
    /// Counts an operation and gives what it is made to do.
    pub fn operate(&mut self, operation: Operation, path: &Path) -> io::Result<Option<Injected>> {
        self.alive()?;
        self.operations += 1;
        let hit = self.targets.iter_mut().position(|(target, _)| target.is_hit(operation, path));
        let targeted = hit.map(|at| self.targets.remove(at).1);
        match self.plan.remove(&self.operations).or(targeted) {
            Some(Injected::Enospc) => Err(io::ErrorKind::StorageFull.into()),
            Some(Injected::Dies) => {
                self.dead = true;
                self.died_in = Some((operation, path.to_owned()));
                self.alive().map(|()| None)
            }
            other => Ok(other),
        }
    }

    pub fn plain(&mut self, operation: Operation, path: &Path) -> io::Result<()> {
        match self.operate(operation, path)? {
            Some(Injected::Eio) => Err(io::Error::from_raw_os_error(5)),
            _ => Ok(()),
        }
    }

    pub fn operate_on(&mut self, operation: Operation, id: u64) -> io::Result<Option<Injected>> {
        let path = self.path_of(id);
        self.operate(operation, &path)
    }

    pub fn plain_on(&mut self, operation: Operation, id: u64) -> io::Result<()> {
        let path = self.path_of(id);
        self.plain(operation, &path)
    }

    /// The name of a file, while it has one.
    pub fn path_of(&self, id: u64) -> PathBuf {
        let named = self.names.iter().find(|(_, known)| **known == id);
        named.map(|(path, _)| path.clone()).unwrap_or_default()
    }

    pub fn alive(&self) -> io::Result<()> {
        if self.dead { Err(io::Error::other("this disk has lost its power")) } else { Ok(()) }
    }

    fn used(&self) -> u64 {
        self.inodes.values().map(|inode| inode.bytes.len() as u64).sum()
    }

    pub fn grow(&mut self, id: u64, length: u64) -> io::Result<()> {
        let now = self.inodes[&id].bytes.len() as u64;
        if length > now && self.used() + length - now > self.total_bytes {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if length > now {
            self.inodes.get_mut(&id).expect("it is open").bytes.resize(length as usize, 0);
        }
        Ok(())
    }

    fn find(&self, path: &Path) -> io::Result<u64> {
        self.names.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn parent_exists(&self, path: &Path) -> io::Result<()> {
        let parent = path.parent().unwrap_or(Path::new(""));
        if self.directories.contains(parent) { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    /// Forgets files that have neither a name nor an opener.
    pub fn sweep(&mut self, id: u64) {
        let named = self.names.values().chain(self.durable_names.values()).any(|known| *known == id);
        if !named && self.inodes.get(&id).is_some_and(|inode| inode.open == 0) {
            self.inodes.remove(&id);
        }
    }
}

impl Disk for MemoryDisk {
    fn create(&self, path: &Path, access: Access) -> io::Result<Box<dyn DiskFile>> {
        let mut tree = self.lock();
        tree.plain(Operation::Create, path)?;
        tree.parent_exists(path)?;
        if tree.names.contains_key(path) || tree.directories.contains(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        tree.next_inode += 1;
        let id = tree.next_inode;
        tree.inodes.insert(id, Inode { open: 1, ..Inode::default() });
        tree.names.insert(path.to_owned(), id);
        Ok(Box::new(MemoryFile { tree: Arc::clone(&self.tree), id, access }))
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Box<dyn DiskFile>> {
        let mut tree = self.lock();
        tree.alive()?;
        let id = tree.find(path)?;
        tree.inodes.get_mut(&id).expect("a name has its inode").open += 1;
        Ok(Box::new(MemoryFile { tree: Arc::clone(&self.tree), id, access }))
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let tree = self.lock();
        tree.alive()?;
        if !tree.directories.contains(directory) {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(children(tree.names.keys(), directory))
    }

    fn list_directories(&self, directory: &Path) -> io::Result<Vec<String>> {
        let tree = self.lock();
        tree.alive()?;
        if !tree.directories.contains(directory) {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(children(tree.directories.iter(), directory))
    }

    fn create_directory(&self, path: &Path) -> io::Result<()> {
        let mut tree = self.lock();
        tree.plain(Operation::Directory, path)?;
        if path.ancestors().any(|above| tree.names.contains_key(above)) {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        let all: Vec<PathBuf> = path.ancestors().map(Path::to_owned).collect();
        tree.directories.extend(all);
        Ok(())
    }

    fn remove_directory(&self, path: &Path) -> io::Result<()> {
        let mut tree = self.lock();
        tree.plain(Operation::Directory, path)?;
        if !tree.directories.contains(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let inside = |known: &PathBuf| known.as_path() != path && known.starts_with(path);
        if tree.names.keys().any(inside) || tree.directories.iter().any(inside) {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        tree.directories.remove(path);
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut tree = self.lock();
        tree.plain(Operation::Rename, to)?;
        let id = tree.find(from)?;
        tree.parent_exists(to)?;
        tree.names.remove(from);
        if let Some(replaced) = tree.names.insert(to.to_owned(), id) {
            tree.sweep(replaced);
        }
        Ok(())
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut tree = self.lock();
        tree.plain(Operation::Rename, to)?;
        let id = tree.find(from)?;
        tree.parent_exists(to)?;
        if tree.names.contains_key(to) || tree.directories.contains(to) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        tree.names.remove(from);
        tree.names.insert(to.to_owned(), id);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut tree = self.lock();
        tree.plain(Operation::Remove, path)?;
        let id = tree.find(path)?;
        tree.names.remove(path);
        tree.sweep(id);
        Ok(())
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        let mut tree = self.lock();
        match tree.operate(Operation::SyncDirectory, path)? {
            Some(Injected::Eio) => return Err(io::Error::from_raw_os_error(5)),
            Some(Injected::Lie) => return Ok(()),
            _ => {}
        }
        if !tree.directories.contains(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let within = |name: &Path| name.parent() == Some(path);
        let gone: Vec<u64> =
            tree.durable_names.iter().filter(|(name, _)| within(name)).map(|(_, id)| *id).collect();
        tree.durable_names.retain(|name, _| !within(name));
        let now: Vec<_> = tree
            .names
            .iter()
            .filter(|(name, _)| within(name))
            .map(|(name, id)| (name.clone(), *id))
            .collect();
        tree.durable_names.extend(now);
        gone.into_iter().for_each(|id| tree.sweep(id));
        Ok(())
    }

    fn space(&self, _path: &Path) -> io::Result<Space> {
        let tree = self.lock();
        tree.alive()?;
        Ok(Space { free_bytes: tree.total_bytes.saturating_sub(tree.used()), total_bytes: tree.total_bytes })
    }
}

fn children<'a>(paths: impl Iterator<Item = &'a PathBuf>, directory: &Path) -> Vec<String> {
    let inside = paths.filter(|path| path.parent() == Some(directory));
    let mut names: Vec<String> =
        inside.filter_map(|path| path.file_name()).map(|name| name.to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
