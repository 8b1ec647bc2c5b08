mod cold;
mod merge;
mod model;
mod node;
pub mod support;
mod transfer;
