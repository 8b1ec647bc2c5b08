//! Tests over several replicas in one process.

mod behaviour;
mod checker;
mod cluster;
mod gating;
mod simulation;
