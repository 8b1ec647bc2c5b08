//! The metadata as another cluster's: of a copy of a bucket.

use varve_common::{ClusterId, Incarnation};

use super::MetadataState;

impl MetadataState {
    /// The same topics, configurations and numbers, of this life of this cluster. Checkpoints of the other are none of its.
    #[must_use]
    pub fn rehomed(mut self, cluster: ClusterId, incarnation: Incarnation) -> Self {
        (self.image.cluster, self.image.incarnation) = (cluster, incarnation);
        self.published.clear();
        self
    }
}
