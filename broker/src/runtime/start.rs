//! How far a start has come: what `/readyz` says until this node serves, and `varve_start_stage` counts.
//!
//! ```text
//! opening ──> forming ──> joining ──> recovering ──> registering ──> serving
//!              └ of several nodes, ┘
//!                a new disk only
//! ```

use std::sync::{Arc, RwLock};

use crate::{
    http::{Check, Note},
    metrics::Metrics,
};

/// Where a start stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The data directory and the object store are opened.
    Opening,
    /// The seeds are asked: for a cluster that is to be, or for one that is there.
    Forming,
    /// The disk is new to a cluster that was formed without it, and waits for its place in the metadata.
    Joining,
    /// The log is read.
    Recovering,
    /// The metadata is caught up with, and told of this node.
    Registering,
    /// Clients are answered.
    Serving,
}

impl Stage {
    /// All, in order.
    pub const ALL: [Self; 6] =
        [Self::Opening, Self::Forming, Self::Joining, Self::Recovering, Self::Registering, Self::Serving];

    /// What it is called outside.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Opening => "opening",
            Self::Forming => "forming",
            Self::Joining => "joining",
            Self::Recovering => "recovering",
            Self::Registering => "registering",
            Self::Serving => "serving",
        }
    }

    const fn meaning(self) -> &'static str {
        match self {
            Self::Opening => "the data directory and the object store are opened",
            Self::Forming => "the seeds are asked for a cluster",
            Self::Joining => "this disk is new to the cluster and waits for its place in it",
            Self::Recovering => "the log is read",
            Self::Registering => "the metadata is caught up with",
            Self::Serving => "clients are answered",
        }
    }
}

/// The start of this node; clones share it.
#[derive(Clone)]
pub struct Start {
    at: Arc<RwLock<(Stage, Note)>>,
    metrics: Arc<Metrics>,
}

impl Start {
    /// It begins.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>) -> Self {
        let start = Self { at: Arc::new(RwLock::new((Stage::Opening, None))), metrics };
        start.enter(Stage::Opening);
        start
    }

    /// What is counted.
    #[must_use]
    pub fn metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.metrics)
    }

    /// The next stage.
    pub fn enter(&self, stage: Stage) {
        *self.at.write().expect("no holder of this lock panics") = (stage, None);
        for known in Stage::ALL {
            let gauge = self.metrics.handles.start_stage.get_or_create(&[("stage", known.name())]);
            gauge.set(i64::from(known == stage));
        }
    }

    /// What is waited for in this stage.
    pub fn wait_for(&self, what: Note) {
        self.at.write().expect("no holder of this lock panics").1 = what;
    }

    /// What readiness says of it.
    #[must_use]
    pub fn check(&self) -> Check {
        let start = self.clone();
        Check::new("start", move || {
            let (stage, waiting) = start.at.read().expect("no holder of this lock panics").clone();
            match (stage, waiting) {
                (Stage::Serving, _) => Ok(()),
                (stage, None) => Err(format!("{}: {}", stage.name(), stage.meaning())),
                (stage, Some(what)) => Err(format!("{}: {}: {what}", stage.name(), stage.meaning())),
            }
        })
    }
}
