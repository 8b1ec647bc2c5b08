//! Varve from outside: the release binary as a process, stock clients, kills and cuts.
//!
//! `cargo build --release && cargo test -p varve-tests` runs them; `VARVE_BIN` names another binary. What CI runs is bounded; a person can
//! ask for more: `VARVE_PROOF_RECORDS`, `VARVE_PROOF_KILLS`, `VARVE_WAL_BOUND_MIB`, `VARVE_POWER_CUTS` (at random moments),
//! `VARVE_POWER_ROUNDS` (over the named points; `VARVE_POWER_POINTS` picks those that begin so), `VARVE_POWER_CONTROLS`,
//! `VARVE_OUTAGE_SECONDS`, `VARVE_OUTAGE_KILLS` (between two outages), `VARVE_STOP_SECONDS`, `VARVE_SEED`.

mod administration;
mod anomalies;
mod archive;
mod archive_follow;
mod back_pressure;
mod bad_input;
mod bucket_verify;
mod byte_for_byte;
mod cluster;
mod cluster_admin;
mod cluster_anomalies;
mod cluster_clocks;
mod cluster_faults;
mod cluster_follow;
mod cluster_join;
mod cluster_return;
mod cluster_rot;
mod cluster_snapshots;
mod cluster_start;
mod cluster_storms;
mod cluster_streams;
mod cluster_tls;
mod cold_reads;
mod collect;
mod damage;
mod disk_pressure;
mod doctor;
mod drill;
mod elsewhere;
mod first_batches;
mod formats;
mod group_clients;
mod groups;
mod hostile_s3;
mod hot_bytes;
mod librdkafka;
mod local_retention;
mod lost_log;
mod merge;
mod network;
mod offline;
mod operate;
mod power;
mod proof;
mod restore;
mod restore_rivals;
mod restore_steps;
mod restore_unknown;
mod rig;
mod rot;
mod round_trips;
mod scrub;
mod snippets;
mod stores;
mod switch;
mod topic_configs;
mod turned_away;
mod two_leaders;
mod wal_bound;
