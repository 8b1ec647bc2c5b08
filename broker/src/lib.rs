//! The process: sockets, tasks, configuration, handlers.
