//! Starts real S3 servers for tests and people.
