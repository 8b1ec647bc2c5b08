mod cold;
mod model;
mod node;
pub mod support;
mod transfer;
