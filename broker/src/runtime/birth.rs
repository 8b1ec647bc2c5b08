//! Whether the log that is there is the one that this data directory began with.
//!
//! ```text
//!  {data}/born      unborn n ──the log has its first file, and ──> born n         before the first vote is given
//!  {data}/wal/born             ────────────────────────> n
//! ```
//! Votes and acknowledged entries stand in the log alone. One that was wiped, or comes up empty from a disk of its own, must not
//! speak for the voter that it was (fault rows 27 and 29): where the two numbers differ, or one is missing, or no file of the log
//! is left, the log is lost. A directory that an earlier release made has neither number, and gets them where it has a log.
//!
//! A node of several whose log is lost comes back to its cluster under another disk's number, and gives nothing up before the cluster can
//! change its metadata without it: where disks are mounted late on all nodes at once, nobody would be left who takes them back, and every
//! record is there. It asks for its place only then, when the log cannot come back any more (`runtime::joining`).
//!
//! ```text
//!  lost ──a quorum answers──> {data}/rejoined ──> set aside, another disk's number, unborn m ──HostMetadata──> joined
//!    '──the log is there again──> refuses to go on: the next start finds it whole
//! ```

use std::{
    io,
    path::{Path, PathBuf},
};

use varve_common::{ClusterId, Disk, Entropy, ReplicaId};

use super::{
    data::Layout,
    errors::RunError,
    formation,
    identity::{Identity, IdentityError},
    joining,
    small_file::{self, SmallFileError},
};
use crate::config::Config;

/// In the data directory and in that of the log.
pub const FILE: &str = "born";
/// What this disk is from now on, until nothing is left of what it was.
const REJOINED: &str = "rejoined";
/// Where what is left beside a lost log is set aside.
const LOST: &str = "lost";

/// What is known of the log before it is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is the one that was there.
    Whole,
    /// There was none yet, or none with a number; it gets this one.
    Unborn(u64),
    /// What was there is gone.
    Lost,
}

/// Why a data directory cannot be told from another.
#[derive(Debug, thiserror::Error)]
pub enum BirthError {
    /// The disk.
    #[error(transparent)]
    File(#[from] SmallFileError),
    /// The disk.
    #[error("{action} {}: {source}", .path.display())]
    Disk {
        /// What was wanted.
        action: &'static str,
        /// Of what.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// Whose the directory is cannot be told.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A new data directory with an old log.
    #[error(
        "the log in {} is of another data directory: bring that back, or move the log away", .0.display()
    )]
    Foreign(PathBuf),
    /// What a cluster granted is not what was written.
    #[error("the file of the data directory that says how this node joins its cluster anew is damaged")]
    Damaged,
}

/// What a number's file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Birth {
    Unborn(u64),
    Born(u64),
}

impl Birth {
    fn encode(self) -> Vec<u8> {
        let (state, number) = match self {
            Self::Unborn(number) => (0, number),
            Self::Born(number) => (1, number),
        };
        small_file::seal(&[&[state][..], &u64::to_le_bytes(number)].concat())
    }

    /// A damaged file is no number: the log counts as lost, as it does without.
    fn decode(bytes: &[u8]) -> Option<Self> {
        let (state, number) = small_file::unseal(bytes)?.split_first()?;
        let number = number.try_into().ok().map(u64::from_le_bytes)?;
        match state {
            0 => Some(Self::Unborn(number)),
            1 => Some(Self::Born(number)),
            _ => None,
        }
    }
}

/// Looks at the numbers; a directory that has none gets the first of them, durably.
pub fn look(disk: &dyn Disk, layout: &Layout, entropy: &dyn Entropy) -> Result<Standing, BirthError> {
    let standing = inspect(disk, layout)?;
    if let Some(standing) = standing {
        return Ok(standing);
    }
    let number = entropy.next_u64();
    small_file::replace(disk, &layout.root, FILE, &Birth::Unborn(number).encode())?;
    if has_files(disk, layout)? {
        // Of an earlier release: its log has voted, and is missed from now on.
        bear(disk, layout, Standing::Unborn(number))?;
        return Ok(Standing::Whole);
    }
    Ok(Standing::Unborn(number))
}

/// A node of several that lost its log is new to its cluster, which has what was in it. Alone it must not go on as if nothing
/// had been there.
pub(super) fn admit(
    config: &Config,
    layout: &Layout,
    disk: &dyn Disk,
    entropy: &dyn Entropy,
) -> Result<Standing, RunError> {
    if let Some(given_up) = given_up(disk, layout)? {
        begin_again(disk, layout, entropy, &given_up)?;
    }
    let standing = look(disk, layout, entropy)?;
    if standing != Standing::Lost {
        return Ok(standing);
    }
    if !config.is_clustered() || !formation::has_formed(disk, &layout.root)? {
        return Err(RunError::LogLost(layout.wal.clone()));
    }
    tracing::error!(
        log = %layout.wal.display(),
        "the write-ahead log is not the one that this data directory began with, or is gone: nothing is given up before the cluster can take this node back"
    );
    Ok(standing)
}

/// What a node is from now on that gives its log up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GivenUp {
    /// Its cluster.
    pub cluster: ClusterId,
    /// The number of the disk as which it asks for a place.
    pub disk: u64,
    /// Its replica of the metadata, where an earlier release has asked for the place before it gave up.
    pub replica: Option<ReplicaId>,
}

impl GivenUp {
    fn encode(&self) -> Vec<u8> {
        let replica = self.replica.map_or(0, ReplicaId::get);
        let numbers = [replica.to_le_bytes(), self.disk.to_le_bytes()].concat();
        small_file::seal(&[&self.cluster.0[..], &numbers].concat())
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (cluster, numbers) = small_file::unseal(bytes)?.split_at_checked(16)?;
        let (replica, disk) = numbers.split_at_checked(8)?;
        let number = |bytes: &[u8]| bytes.try_into().ok().map(u64::from_le_bytes);
        let (cluster, replica) = (ClusterId(cluster.try_into().ok()?), ReplicaId::from_raw(number(replica)?));
        Some(Self { cluster, disk: number(disk)?, replica })
    }
}

fn given_up(disk: &dyn Disk, layout: &Layout) -> Result<Option<GivenUp>, BirthError> {
    let bytes = small_file::read(disk, &layout.root.join(REJOINED))?;
    bytes.map(|bytes| GivenUp::decode(&bytes).ok_or(BirthError::Damaged)).transpose()
}

/// What this node was is given up. Whatever is left of that is set aside, however far this comes: from its first write on this disk is
/// another.
pub(super) fn give_up(
    disk: &dyn Disk,
    layout: &Layout,
    entropy: &dyn Entropy,
    given_up: &GivenUp,
) -> Result<(), ForgetError> {
    small_file::replace(disk, &layout.root, REJOINED, &given_up.encode())?;
    begin_again(disk, layout, entropy, given_up)
}

fn begin_again(
    disk: &dyn Disk,
    layout: &Layout,
    entropy: &dyn Entropy,
    given_up: &GivenUp,
) -> Result<(), ForgetError> {
    let aside = set_aside(disk, layout, entropy, |_| true)?;
    formation::forget_disk(disk, &layout.root, given_up.disk)?;
    match given_up.replica {
        Some(replica) => joining::store(disk, &layout.root, given_up.cluster, replica)?,
        None => joining::forget(disk, &layout.root)?,
    }
    begin_anew(disk, layout, entropy)?;
    small_file::remove(disk, &layout.root, REJOINED)?;
    tracing::error!(set_aside = %aside.display(), "the write-ahead log is given up: this node joins its cluster anew");
    Ok(())
}

/// The same as [`look`] without writing anything; `None` where there is no number to go by.
pub fn inspect(disk: &dyn Disk, layout: &Layout) -> Result<Option<Standing>, BirthError> {
    let read = |path: PathBuf| small_file::read(disk, &path.join(FILE));
    let (root, log) = (read(layout.root.clone())?, read(layout.wal.clone())?);
    let decode = |bytes: &Option<Vec<u8>>| bytes.as_deref().and_then(Birth::decode);
    let has_files = has_files(disk, layout)?;
    Ok(match (decode(&root), decode(&log)) {
        // A log with records of its own is not one that this directory is about to make.
        (Some(Birth::Unborn(number)), Some(Birth::Born(other))) if other != number && has_files => {
            return Err(BirthError::Foreign(layout.wal.clone()));
        }
        (Some(Birth::Unborn(number)), _) => Some(Standing::Unborn(number)),
        (Some(mine @ Birth::Born(_)), Some(its)) if mine == its && has_files => Some(Standing::Whole),
        (Some(Birth::Born(_)), _) => Some(Standing::Lost),
        (None, _) if !has_begun(disk, layout)? => {
            if log.is_some() && has_files {
                return Err(BirthError::Foreign(layout.wal.clone()));
            }
            None
        }
        // Of an earlier release.
        (None, None) if root.is_none() && log.is_none() && has_files => None,
        (None, _) => Some(Standing::Lost),
    })
}

fn has_files(disk: &dyn Disk, layout: &Layout) -> Result<bool, BirthError> {
    match disk.list(&layout.wal) {
        Ok(names) => Ok(names.iter().any(|name| name.ends_with(".wal"))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(BirthError::Disk { action: "list", path: layout.wal.clone(), source }),
    }
}

/// Whether a log was opened here, or was about to be: then somebody may count on it.
fn has_begun(disk: &dyn Disk, layout: &Layout) -> Result<bool, BirthError> {
    Ok(Identity::load(disk, &layout.root)?.is_some() || joining::has_joined(disk, &layout.root)?)
}

/// The log is open, and has a file: from here on it is missed when it is gone.
pub fn bear(disk: &dyn Disk, layout: &Layout, standing: Standing) -> Result<(), SmallFileError> {
    let Standing::Unborn(number) = standing else { return Ok(()) };
    let born = Birth::Born(number).encode();
    small_file::replace(disk, &layout.wal, FILE, &born)?;
    small_file::replace(disk, &layout.root, FILE, &born)
}

/// The log is an older copy of the one that was there: from the next start on it counts as lost.
pub(super) fn disown(disk: &dyn Disk, layout: &Layout) -> Result<(), SmallFileError> {
    small_file::remove(disk, &layout.wal, FILE)
}

/// Why a lost log is not given up.
#[derive(Debug, thiserror::Error)]
pub enum ForgetError {
    /// The disk.
    #[error(transparent)]
    Birth(#[from] BirthError),
    /// The disk.
    #[error(transparent)]
    File(#[from] SmallFileError),
    /// What it is to forget.
    #[error(transparent)]
    Formation(#[from] formation::FormationError),
}

/// A log that is not lost any more: it gets a number of its own.
pub fn begin_anew(
    disk: &dyn Disk,
    layout: &Layout,
    entropy: &dyn Entropy,
) -> Result<Standing, SmallFileError> {
    let number = entropy.next_u64();
    small_file::replace(disk, &layout.root, FILE, &Birth::Unborn(number).encode())?;
    Ok(Standing::Unborn(number))
}

/// Moves what is left of a log, and local files of groups (by the names of their folders) where `goes` says so, out of the way;
/// gives where they are.
pub fn set_aside(
    disk: &dyn Disk,
    layout: &Layout,
    entropy: &dyn Entropy,
    goes: impl Fn(&str) -> bool,
) -> Result<PathBuf, BirthError> {
    let loss = format!("{:016x}", entropy.next_u64());
    let aside = layout.root.join(LOST).join(&loss);
    let mut moved = Vec::new();
    if has_files(disk, layout)? {
        moved.push((layout.wal.clone(), aside.join("wal")));
    }
    for (folder, name) in [(&layout.groups, "groups"), (&layout.segments, "segments")] {
        let list = disk.list_directories(folder);
        let groups =
            list.map_err(|source| BirthError::Disk { action: "list", path: folder.clone(), source })?;
        let gone = groups.into_iter().filter(|group| goes(group));
        moved.extend(gone.map(|group| (folder.join(&group), aside.join(name).join(&group))));
    }
    for (from, to) in moved {
        move_folder(disk, &from, &to, &loss).map_err(|source| BirthError::Disk {
            action: "set aside",
            path: from,
            source,
        })?;
    }
    disk.create_directory(&layout.wal).map_err(|source| BirthError::Disk {
        action: "make",
        path: layout.wal.clone(),
        source,
    })?;
    Ok(aside)
}

fn move_folder(disk: &dyn Disk, from: &Path, to: &Path, loss: &str) -> io::Result<()> {
    let (above, left) =
        (to.parent().expect("it is below another"), from.parent().expect("it is below another"));
    disk.create_directory(above)?;
    match disk.rename(from, to) {
        Err(error) if matches!(error.kind(), io::ErrorKind::ResourceBusy | io::ErrorKind::CrossesDevices) => {
            return move_files(disk, from, loss);
        }
        renamed => renamed?,
    }
    disk.sync_directory(above)?;
    disk.sync_directory(left)
}

/// A folder that is a mount of its own stays where it is, and what is in it goes into a folder there: one for each loss, for the files of
/// each have the same names.
fn move_files(disk: &dyn Disk, folder: &Path, loss: &str) -> io::Result<()> {
    let losses = folder.join(LOST);
    let aside = losses.join(loss);
    disk.create_directory(&losses)?;
    disk.create_directory(&aside)?;
    for name in disk.list(folder)? {
        disk.rename(&folder.join(&name), &aside.join(&name))?;
    }
    disk.sync_directory(&aside)?;
    disk.sync_directory(&losses)?;
    disk.sync_directory(folder)
}

#[cfg(test)]
mod tests;
