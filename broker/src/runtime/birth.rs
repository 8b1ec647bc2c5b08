//! Whether the log that is there is the one that this data directory began with.
//!
//! ```text
//!  {data}/born      unborn n ──the log has its first file, and ──> born n         before the first vote is given
//!  {data}/wal/born             ────────────────────────> n
//! ```
//! Votes and acknowledged entries stand in the log alone. One that was wiped, or comes up empty from a disk of its own, must not
//! speak for the voter that it was (fault rows 27 and 29): where the two numbers differ, or one is missing, or no file of the log
//! is left, the log is lost. A directory that an earlier release made has neither number, and gets them where it has a log.

use std::{io, path::PathBuf};

use varve_common::{Disk, Entropy};

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
    let standing = look(disk, layout, entropy)?;
    if standing != Standing::Lost {
        return Ok(standing);
    }
    if !config.is_clustered() || !formation::has_formed(disk, &layout.root)? {
        return Err(RunError::LogLost(layout.wal.clone()));
    }
    let (standing, aside) = forget(disk, layout, entropy)?;
    tracing::error!(
        log = %layout.wal.display(), set_aside = %aside.display(),
        "the write-ahead log is not the one that this data directory began with, or is gone: this node joins its cluster anew"
    );
    Ok(standing)
}

/// The same as [`look`] without writing anything; `None` where there is no number to go by.
pub fn inspect(disk: &dyn Disk, layout: &Layout) -> Result<Option<Standing>, BirthError> {
    let read = |path: PathBuf| small_file::read(disk, &path.join(FILE));
    let (root, log) = (read(layout.root.clone())?, read(layout.wal.clone())?);
    let decode = |bytes: &Option<Vec<u8>>| bytes.as_deref().and_then(Birth::decode);
    let has_files = has_files(disk, layout)?;
    Ok(match (decode(&root), decode(&log)) {
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

/// The log is given up, and all that only it makes sense of is set aside: this disk is new to its cluster. After a crash in between
/// the log is still lost, and this begins again. Gives the log's number to be, and where things are.
pub fn forget(
    disk: &dyn Disk,
    layout: &Layout,
    entropy: &dyn Entropy,
) -> Result<(Standing, PathBuf), ForgetError> {
    let aside = set_aside(disk, layout, entropy, |_| true)?;
    formation::forget_disk(disk, &layout.root, entropy.next_u64())?;
    joining::forget(disk, &layout.root)?;
    Ok((begin_anew(disk, layout, entropy)?, aside))
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
    let aside = layout.root.join(LOST).join(format!("{:016x}", entropy.next_u64()));
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
        move_folder(disk, &from, &to).map_err(|source| BirthError::Disk {
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

fn move_folder(disk: &dyn Disk, from: &std::path::Path, to: &std::path::Path) -> io::Result<()> {
    let (above, left) =
        (to.parent().expect("it is below another"), from.parent().expect("it is below another"));
    disk.create_directory(above)?;
    disk.rename(from, to)?;
    disk.sync_directory(above)?;
    disk.sync_directory(left)
}

#[cfg(test)]
mod tests;
