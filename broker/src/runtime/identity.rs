//! Whose data directory this is: written once, durably, before anything else is.
//!
//! A directory of another node or cluster is refused (fault row 31): its log would speak for a voter that it is not.

use std::path::Path;

use varve_common::{ClusterId, Disk, Incarnation, NodeId, crc32c};

use super::small_file::{self, SmallFileError};

const FILE: &str = "identity";
/// The layout of the data directory.
const FORMAT: u32 = 1;

/// What a data directory is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterId,
    /// The life of the cluster on its object store.
    pub incarnation: Incarnation,
    /// The node.
    pub node: NodeId,
}

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The disk did not do what was asked.
    #[error("identity of the data directory: {0}")]
    Disk(#[from] SmallFileError),
    /// The file does not hold what was written: it is damaged, or not ours.
    #[error("the identity file of the data directory is damaged: {0}")]
    Damaged(&'static str),
    /// A later version made it.
    #[error("the data directory has format {found}, this version knows up to {FORMAT}")]
    Format {
        /// Its format.
        found: u32,
    },
}

impl Identity {
    /// What nodes of its life know each other by.
    #[must_use]
    pub fn life(&self) -> ClusterId {
        self.cluster.in_life(self.incarnation)
    }

    /// Reads the identity of `directory`, `None` where it has none yet.
    pub fn load(disk: &dyn Disk, directory: &Path) -> Result<Option<Self>, IdentityError> {
        let Some(bytes) = small_file::read(disk, &directory.join(FILE))? else { return Ok(None) };
        let text = std::str::from_utf8(&bytes).map_err(|_| IdentityError::Damaged("it is not text"))?;
        parse(text).map(Some)
    }

    /// Makes this the identity of `directory`, durably.
    pub fn store(&self, disk: &dyn Disk, directory: &Path) -> Result<(), IdentityError> {
        Ok(small_file::replace(disk, directory, FILE, self.text().as_bytes())?)
    }

    fn text(&self) -> String {
        let body = format!(
            "format = {FORMAT}\ncluster = {}\nincarnation = {}\nnode = {}\n",
            self.cluster, self.incarnation.0, self.node
        );
        format!("{body}crc32c = {:08x}\n", crc32c(body.as_bytes()))
    }
}

fn parse(text: &str) -> Result<Identity, IdentityError> {
    let damaged = IdentityError::Damaged;
    let field = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(" = "))
            .ok_or(damaged("a line is missing"))
    };
    let format: u32 = field("format")?.parse().map_err(|_| damaged("format"))?;
    if format > FORMAT {
        return Err(IdentityError::Format { found: format });
    }
    let checked = text.find("crc32c = ").ok_or(damaged("a line is missing"))?;
    if field("crc32c")? != format!("{:08x}", crc32c(&text.as_bytes()[..checked])) {
        return Err(damaged("its checksum is wrong"));
    }
    let node: u32 = field("node")?.parse().map_err(|_| damaged("node"))?;
    Ok(Identity {
        cluster: field("cluster")?.parse().map_err(|_| damaged("cluster"))?,
        incarnation: Incarnation(field("incarnation")?.parse().map_err(|_| damaged("incarnation"))?),
        node: NodeId::new(node).ok_or(damaged("node"))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity {
            cluster: ClusterId::from_random(42),
            incarnation: Incarnation(3),
            node: NodeId::new(7).expect("7 is a node id"),
        }
    }

    #[test]
    fn reads_back_what_it_wrote() {
        assert_eq!(parse(&identity().text()).unwrap(), identity());
    }

    #[test]
    fn nodes_of_another_life_are_of_another_cluster() {
        let life = |incarnation| Identity { incarnation: Incarnation(incarnation), ..identity() }.life();
        assert_eq!(life(1), identity().cluster);
        assert!(life(2) != life(1) && life(3) != life(2) && life(3) != life(1));
    }

    #[test]
    fn s5_an_altered_identity_is_refused() {
        let text = identity().text().replace("node = 7", "node = 8");
        assert!(matches!(parse(&text), Err(IdentityError::Damaged("its checksum is wrong"))));
        assert!(matches!(parse(""), Err(IdentityError::Damaged(_))));
        let newer = identity().text().replace("format = 1", "format = 9");
        assert!(matches!(parse(&newer), Err(IdentityError::Format { found: 9 })));
    }
}
