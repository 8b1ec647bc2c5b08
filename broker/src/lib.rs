//! The process: sockets, tasks, configuration, handlers.

pub mod driver;
pub mod runtime;
