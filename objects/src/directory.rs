//! Objects as files: the embedded store of one node, or a directory that several nodes share.
//!
//! ```text
//!   {root}/staging/{writer:016x}-{number:016x}     being written; whatever is found here at the start is removed
//!   {root}/data/{key}                an object; its slashes are directories
//!
//!   put: create staged -> write -> sync file -> make directories -> rename, if new -> sync directory -> Ok
//! ```
//!
//! The bytes are durable before the name is there, and the name before the put succeeds. A crash in between leaves a
//! staged file, or an object that nobody was promised, and whose key nobody uses for other bytes.
//!
//! A failed sync of a directory leaves open which names a crash will bring back, and a later sync may succeed
//! without having written them: from then on the store answers `Fatal` to every change. A failed sync of a staged
//! file only costs that file.
//!
//! Long reads and all writes go past the page cache where the file system takes that: segments are written once, their readers have a
//! cache of their own, and new pages cost more than the transfer (docs/benchmarks.md).
//!
//! Several processes may have one root open: each names what it stages by a number of its own, so that no file is renamed to the key of
//! another's bytes. A start removes what others are staging, too: their puts fail and are tried again. Who may write which key is the
//! broker's business. Calls block the thread that polls them for as long as the disk takes: poll them where that hurts nobody.

use std::{
    io,
    ops::Range,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use thiserror::Error;
use varve_common::{
    Access, Digest, Disk, DiskFile, ObjectKey,
    aligned::{AlignedBytes, BLOCK_BYTES, ReadBuffers, remove_if_there, usable_access},
    clock::BoxFuture,
    disk::read_exact_at,
};

use crate::{
    Body, Failure, GetError, HeadError, Listed, Page, PutError, Store, Suffix, bugs, key,
    limits::{
        DIRECT_READ_BYTES_MAX, DIRECT_READ_BYTES_MIN, DIRECT_WRITE_BYTES, LIST_PAGE_MAX, READ_BUFFERS_KEPT,
    },
};

/// The store over one directory.
pub struct Directory {
    disk: Arc<dyn Disk>,
    data: PathBuf,
    staging: PathBuf,
    writer: u64,
    next_staged: AtomicU64,
    unsure: AtomicBool,
    /// How objects are written, and read where much is asked for.
    access: Access,
    read_buffers: Arc<ReadBuffers>,
}

/// Why the directory does not serve.
#[derive(Debug, Error)]
#[error("directory {} cannot be used: {source}", path.display())]
pub struct OpenError {
    path: PathBuf,
    source: io::Error,
}

impl Directory {
    /// Makes the directory where it is missing and removes what unfinished puts left. `writer` is a number that nobody else who has
    /// this directory open has drawn: chance does.
    pub fn open(disk: Arc<dyn Disk>, root: &Path, writer: u64) -> Result<Self, OpenError> {
        Self::open_at(disk, root, root.join("data"), root.join("staging"), writer)
    }

    /// The same for objects that others read as files: their keys begin at `root`. What is being written is in a hidden folder.
    pub fn open_plain(disk: Arc<dyn Disk>, root: &Path, writer: u64) -> Result<Self, OpenError> {
        Self::open_at(disk, root, root.to_owned(), root.join(".staging"), writer)
    }

    fn open_at(
        disk: Arc<dyn Disk>,
        root: &Path,
        data: PathBuf,
        staging: PathBuf,
        writer: u64,
    ) -> Result<Self, OpenError> {
        let prepare = || {
            disk.create_directory(&data)?;
            disk.create_directory(&staging)?;
            for name in disk.list(&staging)? {
                // Another node that opens the same directory may be faster.
                remove_if_there(&*disk, &staging.join(name))?;
            }
            disk.sync_directory(&staging)?;
            usable_access(disk.as_ref(), &staging.join(format!("{writer:016x}-probe")))
        };
        let access = prepare().map_err(|source| OpenError { path: root.to_owned(), source })?;
        let (next_staged, unsure) = (AtomicU64::new(0), AtomicBool::new(false));
        let read_buffers = Arc::new(ReadBuffers::new(DIRECT_READ_BYTES_MAX, READ_BUFFERS_KEPT));
        Ok(Self { disk, data, staging, writer, next_staged, unsure, access, read_buffers })
    }

    fn path(&self, key: &ObjectKey) -> Result<PathBuf, Failure> {
        key::check(key)?;
        Ok(self.data.join(key.as_str()))
    }

    fn check_sure(&self) -> Result<(), Failure> {
        if self.unsure.load(Ordering::Acquire) {
            return Err(Failure::Fatal(
                "a directory was not synced: restart to find out what is there".into(),
            ));
        }
        Ok(())
    }

    fn sync_directory(&self, path: &Path) -> Result<(), Failure> {
        if bugs::puts_are_unsynced() {
            return Ok(());
        }
        self.disk.sync_directory(path).map_err(|error| {
            self.unsure.store(true, Ordering::Release);
            Failure::Fatal(format!("{}: sync: {error}", path.display()))
        })
    }

    fn put(&self, key: &ObjectKey, body: &Body, sha256: Digest) -> Result<(), PutError> {
        let path = self.path(key)?;
        self.check_sure()?;
        if body.digest() != sha256 {
            return Err(Failure::Corrupt(format!("object {key}: is {}, not {sha256}", body.digest())).into());
        }
        let number = self.next_staged.fetch_add(1, Ordering::Relaxed);
        let staged = self.staging.join(format!("{:016x}-{number:016x}", self.writer));
        let result = self.write_staged(&staged, body).and_then(|()| self.publish(&staged, &path));
        if result.is_err() {
            // Best effort: the next start removes what is left.
            let _ = self.disk.remove(&staged);
        }
        result
    }

    fn write_staged(&self, staged: &Path, body: &Body) -> Result<(), PutError> {
        let write = || {
            let file = self.disk.create(staged, self.access)?;
            match self.access {
                Access::Buffered => write_pieces(file.as_ref(), body)?,
                Access::Direct => write_blocks(file.as_ref(), body)?,
            }
            if bugs::puts_are_unsynced() { Ok(()) } else { file.sync_data() }
        };
        write().map_err(|error| retry("write", staged, &error).into())
    }

    fn publish(&self, staged: &Path, path: &Path) -> Result<(), PutError> {
        let directory = path.parent().expect("a key's path lies below the data directory");
        self.disk.create_directory(directory).map_err(|error| self.name_failure(path, &error))?;
        match self.disk.rename_new(staged, path) {
            Ok(()) => Ok(self.sync_directory(directory)?),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                // It may be our own earlier try: the caller may take this answer for a success, so the name is durable.
                self.sync_directory(directory)?;
                Err(PutError::AlreadyExists)
            }
            Err(error) => Err(self.name_failure(path, &error).into()),
        }
    }

    /// Where `a` is an object there is no directory for `a/b`, and the other way round: no retry changes that.
    fn name_failure(&self, path: &Path, error: &io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory | io::ErrorKind::AlreadyExists => {
                Failure::Invalid(format!("{}: one key is the folder of another: {error}", path.display()))
            }
            _ => retry("name", path, error),
        }
    }

    fn open_object(&self, key: &ObjectKey) -> Result<Option<OpenObject>, Failure> {
        let path = self.path(key)?;
        let open = || {
            let file = self.disk.open(&path, Access::Buffered)?;
            let bytes = file.len()?;
            Ok(OpenObject { file, bytes })
        };
        match open() {
            Ok(opened) => Ok(Some(opened)),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(retry("open", &path, &error)),
        }
    }

    fn read(
        &self,
        key: &ObjectKey,
        choose: impl Fn(u64) -> Result<Range<u64>, GetError>,
    ) -> Result<Suffix, GetError> {
        let OpenObject { file, bytes: object_bytes } = self.open_object(key)?.ok_or(GetError::NotFound)?;
        let range = choose(object_bytes)?;
        let length = range.end - range.start;
        let is_direct = self.access == Access::Direct
            && (DIRECT_READ_BYTES_MIN..=DIRECT_READ_BYTES_MAX).contains(&length);
        let read = if is_direct {
            self.read_past_cache(key, &range)
        } else {
            read_exact_at(file.as_ref(), range.start, length as usize).map(Bytes::from)
        };
        let bytes = read.map_err(|error| retry("read", Path::new(key.as_str()), &error))?;
        Ok(Suffix { bytes, object_bytes })
    }

    fn read_past_cache(&self, key: &ObjectKey, range: &Range<u64>) -> io::Result<Bytes> {
        let (file, length) =
            (self.disk.open(&self.data.join(key.as_str()), Access::Direct)?, range.end - range.start);
        let bytes = self.read_buffers.read_past_cache(file.as_ref(), range.start, length as usize)?;
        if (bytes.len() as u64) < length { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(bytes) }
    }

    fn page(&self, folder: &str, start_after: Option<&ObjectKey>) -> Result<Page, Failure> {
        key::check_folder(folder)?;
        let mut walk = Walk {
            disk: self.disk.as_ref(),
            start_after: start_after.map_or("", ObjectKey::as_str),
            page: Page::default(),
        };
        let prefix = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        walk.visit(&self.data.join(folder), &prefix)
            .map_err(|error| retry("list", &self.data.join(folder), &error))?;
        Ok(walk.page)
    }

    fn remove(&self, key: &ObjectKey) -> Result<(), Failure> {
        let path = self.path(key)?;
        self.check_sure()?;
        match self.disk.remove(&path) {
            Ok(()) => {}
            // An earlier try may have removed the name without making that durable: sync all the same.
            Err(error) if is_absent(&error) => {}
            Err(error) => return Err(retry("remove", &path, &error)),
        }
        let directory = path.parent().expect("a key's path lies below the data directory");
        match self.disk.list(directory) {
            Ok(_) => self.sync_directory(directory),
            Err(error) if is_absent(&error) => Ok(()),
            Err(error) => Err(retry("remove", directory, &error)),
        }
    }
}

struct OpenObject {
    file: Box<dyn DiskFile>,
    bytes: u64,
}

fn write_pieces(file: &dyn DiskFile, body: &Body) -> io::Result<()> {
    let mut position = 0;
    for piece in body.pieces() {
        file.write_at(piece, position)?;
        position += piece.len() as u64;
    }
    Ok(())
}

/// The same past the page cache: whole blocks, and then the length.
fn write_blocks(file: &dyn DiskFile, body: &Body) -> io::Result<()> {
    let (mut buffer, mut position) = (AlignedBytes::default(), 0);
    for piece in body.pieces() {
        let mut rest = &piece[..];
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(DIRECT_WRITE_BYTES as usize - buffer.len()));
            buffer.extend(now);
            rest = later;
            if buffer.len() as u64 == DIRECT_WRITE_BYTES {
                file.write_at(&buffer, position)?;
                position += DIRECT_WRITE_BYTES;
                buffer.clear();
            }
        }
    }
    let length = position + buffer.len() as u64;
    if !buffer.is_empty() {
        buffer.pad(BLOCK_BYTES);
        file.write_at(&buffer, position)?;
    }
    if length.is_multiple_of(BLOCK_BYTES) { Ok(()) } else { file.set_len(length) }
}

/// A walk over the tree in the order of whole keys: a directory stands where its name and a slash would.
struct Walk<'a> {
    disk: &'a dyn Disk,
    start_after: &'a str,
    page: Page,
}

impl Walk<'_> {
    fn visit(&mut self, directory: &Path, prefix: &str) -> io::Result<()> {
        let files = match self.disk.list(directory) {
            Ok(files) => files,
            Err(error) if is_absent(&error) => return Ok(()),
            Err(error) => return Err(error),
        };
        let folders = self.disk.list_directories(directory)?.into_iter().map(|name| name + "/");
        let mut names: Vec<String> = files.into_iter().chain(folders).collect();
        names.sort_unstable();
        for name in names {
            if self.page.more {
                break;
            }
            let key = format!("{prefix}{name}");
            if let Some(folder) = name.strip_suffix('/') {
                if !self.is_behind(&key) {
                    self.visit(&directory.join(folder), &key)?;
                }
            } else if key.as_str() > self.start_after {
                self.take(&directory.join(name), key)?;
            }
        }
        Ok(())
    }

    /// Whether every key below `folder/` lies at or before the start.
    fn is_behind(&self, folder: &str) -> bool {
        folder < self.start_after && !self.start_after.starts_with(folder)
    }

    fn take(&mut self, path: &Path, key: String) -> io::Result<()> {
        if self.page.objects.len() == LIST_PAGE_MAX {
            self.page.more = true;
            return Ok(());
        }
        let bytes = match self.disk.open(path, Access::Buffered).and_then(|file| file.len()) {
            Ok(bytes) => bytes,
            // Deleted while we walk.
            Err(error) if is_absent(&error) => return Ok(()),
            Err(error) => return Err(error),
        };
        self.page.objects.push(Listed { key: ObjectKey::new(key), bytes });
        Ok(())
    }
}

/// Whether an error says that there is no file of this name (one of its directories may be missing, or a file).
fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory
    )
}

fn retry(action: &str, path: &Path, error: &io::Error) -> Failure {
    Failure::Retry(format!("{}: {action}: {error}", path.display()))
}

fn now<'a, T: Send + 'a>(result: T) -> BoxFuture<'a, T> {
    Box::pin(std::future::ready(result))
}

impl Store for Directory {
    fn put_new<'a>(
        &'a self,
        key: &'a ObjectKey,
        body: Body,
        sha256: Digest,
    ) -> BoxFuture<'a, Result<(), PutError>> {
        Box::pin(async move { self.put(key, &body, sha256) })
    }

    fn get<'a>(&'a self, key: &'a ObjectKey) -> BoxFuture<'a, Result<Bytes, GetError>> {
        Box::pin(async move { self.read(key, |length| Ok(0..length)).map(|read| read.bytes) })
    }

    fn get_range<'a>(
        &'a self,
        key: &'a ObjectKey,
        range: Range<u64>,
    ) -> BoxFuture<'a, Result<Bytes, GetError>> {
        let choose = move |length| {
            if range.is_empty() || range.end > length {
                return Err(GetError::OutOfRange(range.clone()));
            }
            Ok(range.clone())
        };
        Box::pin(async move { self.read(key, choose).map(|read| read.bytes) })
    }

    fn get_suffix<'a>(&'a self, key: &'a ObjectKey, bytes: u64) -> BoxFuture<'a, Result<Suffix, GetError>> {
        if bytes == 0 {
            return now(Err(GetError::OutOfRange(0..0)));
        }
        Box::pin(async move { self.read(key, |length: u64| Ok(length.saturating_sub(bytes)..length)) })
    }

    fn head<'a>(&'a self, key: &'a ObjectKey) -> BoxFuture<'a, Result<u64, HeadError>> {
        Box::pin(async move { self.open_object(key)?.map(|object| object.bytes).ok_or(HeadError::NotFound) })
    }

    fn list<'a>(
        &'a self,
        folder: &'a str,
        start_after: Option<&'a ObjectKey>,
    ) -> BoxFuture<'a, Result<Page, Failure>> {
        Box::pin(async move { self.page(folder, start_after) })
    }

    fn delete<'a>(&'a self, key: &'a ObjectKey) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(async move { self.remove(key) })
    }
}
