//! The figures of the issues, one file per subject.

pub mod archive;
pub mod cluster;
pub mod cold;
pub mod cost;
pub mod end_to_end;
pub mod groups;
pub mod manifest;
pub mod memory;
pub mod partitions;
pub mod produce;
pub mod read;
pub mod restart;
pub mod restore;
pub mod watermark;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::ensure;

use crate::{process::Broker, wire};

/// Where and how long to measure.
pub struct Bench {
    /// The release binary.
    pub binary: PathBuf,
    /// A directory on the disk under measure.
    pub directory: PathBuf,
    /// Interleaved pairs per figure.
    pub pairs: usize,
    /// The time of each half of a pair.
    pub time: Duration,
    /// How much data and how many groups.
    pub scale: Scale,
}

/// Sizes of what is measured.
#[derive(Clone, Copy)]
pub struct Scale {
    /// Partitions that stay idle, in topics of a tenth each.
    pub idle_partitions: i32,
    /// Partitions that share a log.
    pub shared_partitions: i32,
    /// Bytes that one partition is read back from.
    pub read_bytes: usize,
    /// Bytes that are tiered while requests are counted, and that two topics hold before one is deleted.
    pub tiered_bytes: u64,
    /// Partitions that rest while requests are counted.
    pub cost_partitions: i32,
    /// Bytes that leave the log for the bucket and are read back.
    pub cold_bytes: u64,
    /// Partitions that each of three nodes leads when one of them dies.
    pub led_partitions: i32,
    /// Segments that one manifest names.
    pub manifest_segments: u64,
    /// Bytes on the disk of the broker that restarts fast, and of the one that must restart as fast.
    pub restart_bytes: (u64, u64),
}

impl Scale {
    /// As the issue asks.
    pub const WHOLE: Self = Self {
        idle_partitions: 10_000,
        shared_partitions: 1_000,
        read_bytes: 32 << 20,
        tiered_bytes: 2 << 30,
        cost_partitions: 100,
        cold_bytes: 1 << 30,
        led_partitions: 1_000,
        manifest_segments: 1_000_000,
        restart_bytes: (256 << 20, 4 << 30),
    };
    /// Enough to run every line.
    const QUICK: Self = Self {
        idle_partitions: 100,
        shared_partitions: 20,
        read_bytes: 1 << 20,
        tiered_bytes: 160 << 20,
        cost_partitions: 10,
        cold_bytes: 64 << 20,
        led_partitions: 10,
        manifest_segments: 10_000,
        restart_bytes: (1 << 20, 4 << 20),
    };
}

impl Bench {
    /// The same over little data, once.
    pub fn quick(self) -> Self {
        Self { pairs: 1, time: Duration::from_millis(200), scale: Scale::QUICK, ..self }
    }

    /// A broker over a directory of its own, emptied first.
    pub fn broker(&self, name: &str, arguments: &[&str]) -> anyhow::Result<Broker> {
        let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        self.broker_with(name, &arguments, Vec::new())
    }

    /// The same with an environment of its own.
    pub fn broker_with(
        &self,
        name: &str,
        arguments: &[String],
        environment: Vec<(String, String)>,
    ) -> anyhow::Result<Broker> {
        let data = self.directory.join(name);
        if data.exists() {
            std::fs::remove_dir_all(&data)?;
        }
        Broker::start_with(&self.binary, &data, arguments.to_vec(), environment)
    }

    /// The release binary.
    pub fn binary(&self) -> &Path {
        &self.binary
    }
}

/// Deletes a topic and refuses an error.
pub fn delete_topic(address: SocketAddr, topic: &str) -> anyhow::Result<()> {
    let mut client = wire::Client::connect(address)?;
    let body = client.call(&mut wire::delete_topic(topic))?;
    // throttle i32 | topics i32 | name string | error i16
    let name = i16::from_be_bytes(body[8..10].try_into()?) as usize;
    let error = i16::from_be_bytes(body[10 + name..12 + name].try_into()?);
    ensure!(error == 0, "delete topic {topic} answered error {error}");
    Ok(())
}

/// Makes a topic and refuses an error.
pub fn create_topic(
    address: SocketAddr,
    topic: &str,
    partitions: i32,
    configs: &[(&str, &str)],
) -> anyhow::Result<()> {
    create_replicated(address, topic, (partitions, 1), configs)
}

/// The same with so many replicas of each partition.
pub fn create_replicated(
    address: SocketAddr,
    topic: &str,
    (partitions, replicas): (i32, i16),
    configs: &[(&str, &str)],
) -> anyhow::Result<()> {
    let mut client = wire::Client::connect(address)?;
    let body = client.call(&mut wire::create_topic(topic, partitions, replicas, configs))?;
    // throttle i32 | topics i32 | name string | error i16
    let name = i16::from_be_bytes(body[8..10].try_into()?) as usize;
    let error = i16::from_be_bytes(body[10 + name..12 + name].try_into()?);
    ensure!(error == 0, "create topic {topic} answered error {error}");
    Ok(())
}
