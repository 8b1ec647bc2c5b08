mod cold;
mod glimpse;
mod merge;
mod model;
mod node;
mod rebuild;
mod receive;
pub mod support;
mod transfer;
