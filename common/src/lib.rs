//! What every room shares and none owns: the words of the project as types, and the seams to the physical world.
//!
//! - [`ids`]: who (`NodeId`, `ReplicaId`, `GroupId`, `TopicId`). [`position`]: where (`Offset`, `LogIndex`, `Term`,
//!   `WalPosition`). They are newtypes so that an offset is never taken for a log index: mixing those two is the
//!   most common way in which a broker on Raft loses data.
//! - [`clock`] and [`disk`]: the seams to time, chance and storage. A real process and the simulator implement them;
//!   everything above is the same code in both. (The network and the object store have theirs in `broker` and
//!   `objects`.)
//! - [`aligned`]: memory as reads and writes past the page cache want it.
//! - [`checksum`], [`codec`]: CRC-32C, SHA-256 and the little-endian, length-prefixed encoding of stored records.
//!
//! It may touch memory only: no file, socket, clock or environment.

pub mod aligned;
pub mod checksum;
pub mod clock;
pub mod codec;
pub mod disk;
pub mod ids;
pub mod object_key;
pub mod position;

pub use checksum::{Digest, crc32c};
pub use clock::{Clock, Entropy, Monotonic};
pub use disk::{Access, Disk, DiskFile};
pub use ids::{ClusterId, GroupId, Incarnation, NodeId, PartitionIndex, ReplicaId, TopicId};
pub use object_key::ObjectKey;
pub use position::{LeaderEpoch, LogIndex, Offset, Term, WalPosition};
