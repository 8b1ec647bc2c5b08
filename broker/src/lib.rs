//! The process: sockets, tasks, configuration, handlers.

pub mod runtime;
