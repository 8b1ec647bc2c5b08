//! The name of an object in the object store.

use std::{fmt, sync::Arc};

/// The full key of one object, with the cluster's prefix. `formats::keys` builds and parses them; a store takes them
/// as they are and refuses what it cannot hold. Cheap to clone; ordered by bytes, as listings are.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey(Arc<str>);

impl ObjectKey {
    /// Takes a whole key.
    #[must_use]
    pub fn new(key: String) -> Self {
        Self(key.into())
    }

    /// The key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}
