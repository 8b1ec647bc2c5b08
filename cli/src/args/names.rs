//! Words that flags take.

use clap::ValueEnum;
use varve_protocol::batch::Codec;

use crate::client::producer::Acks;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    Bash,
    Zsh,
    Fish,
    Powershell,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Page {
    Cli,
    Config,
    Metrics,
    ApiVersions,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CodecName {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl From<CodecName> for Codec {
    fn from(name: CodecName) -> Self {
        match name {
            CodecName::None => Self::None,
            CodecName::Gzip => Self::Gzip,
            CodecName::Snappy => Self::Snappy,
            CodecName::Lz4 => Self::Lz4,
            CodecName::Zstd => Self::Zstd,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AcksName {
    /// Every in-sync replica
    #[value(alias = "-1")]
    All,
    /// The leader
    #[value(name = "1", alias = "leader")]
    One,
    /// Nobody
    #[value(name = "0", alias = "none")]
    None,
}

impl From<AcksName> for Acks {
    fn from(name: AcksName) -> Self {
        match name {
            AcksName::All => Self::All,
            AcksName::One => Self::Leader,
            AcksName::None => Self::None,
        }
    }
}
