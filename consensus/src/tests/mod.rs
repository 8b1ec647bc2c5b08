//! Tests over several replicas in one process.

mod behaviour;
mod checker;
mod cluster;
mod formation;
mod gating;
mod nodes;
mod peers;
mod several;
mod simulation;
mod snapshots;
