mod cold;
mod glimpse;
mod merge;
mod model;
mod node;
mod rebuild;
pub mod support;
mod transfer;
