//! What goes wrong between a command and a broker, and who acts next.

use std::{fmt, io, ops::Range};

use thiserror::Error;
use varve_protocol::{ApiKey, ErrorCode};

/// An error number of a response; never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code(pub i16);

impl Code {
    /// The error of a response, `None` where all went well.
    pub fn of(number: i16) -> Option<Self> {
        (number != 0).then_some(Self(number))
    }

    /// Whether the same request may do better later.
    pub fn is_retriable(self) -> bool {
        ErrorCode::from_number(self.0).is_some_and(ErrorCode::is_retriable)
    }
}

impl PartialEq<ErrorCode> for Code {
    fn eq(&self, other: &ErrorCode) -> bool {
        self.0 == other.number()
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match ErrorCode::from_number(self.0) {
            Some(code) => write!(f, "{code}"),
            None => write!(f, "kafka error {}", self.0),
        }
    }
}

/// Why a broker did not do what it was asked.
#[derive(Debug, Error)]
pub enum ClientError {
    /// `--bootstrap-server` is empty.
    #[error("no broker address")]
    NoSeeds,
    /// Nobody listens, or the name does not resolve.
    #[error("no broker at {address}: {cause}")]
    Unreachable { address: String, cause: io::Error },
    /// The connection broke or went silent.
    #[error("connection to {address}: {cause}")]
    Connection { address: String, cause: io::Error },
    /// Not Kafka, or a Kafka that this client does not understand.
    #[error("{address} does not answer as Kafka does: {cause}")]
    Protocol { address: String, cause: String },
    /// No version in common.
    #[error("{address} does not offer {key:?} in versions {first} to {last}")]
    Version { address: String, key: ApiKey, first: i16, last: i16 },
    /// A response of the broker says so.
    #[error("{subject}: {code}{}", .message.as_deref().map(|text| format!(" ({text})")).unwrap_or_default())]
    Refused { subject: String, code: Code, message: Option<String> },
    /// Metadata names a leader that it does not list.
    #[error("metadata names broker {node} without an address")]
    NoBroker { node: i32 },
    /// There is no such topic.
    #[error("topic {topic} does not exist")]
    NoTopic { topic: String },
    /// There is no such partition.
    #[error("topic {topic} has {count} partitions and no {partition}")]
    NoPartition { topic: String, partition: i32, count: usize },
    /// What came from a broker is not what was written: its checksum says so, or no batch is there.
    #[error("{topic}/{partition} at offset {offset}: {cause}")]
    Corrupt { topic: String, partition: i32, offset: i64, cause: String },
    /// A batch is as it was written, by its checksum, and its records are not what its header says. Brokers do not open compressed batches
    /// (docs/adr/0020), so a producer can write one.
    #[error("{topic}/{partition}, batch of offsets {} to {}: {cause}", .offsets.start, .offsets.end - 1)]
    Unsound { topic: String, partition: i32, offsets: Range<i64>, cause: String },
}

impl ClientError {
    pub fn refused(subject: String, code: Code, message: Option<String>) -> Self {
        Self::Refused { subject, code, message }
    }

    /// Whether the connection is of no more use.
    pub const fn is_of_connection(&self) -> bool {
        matches!(self, Self::Connection { .. } | Self::Protocol { .. })
    }

    /// Whether the same request, after asking for metadata again, may do better.
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::Connection { .. } | Self::NoBroker { .. } | Self::Unreachable { .. } => true,
            Self::Refused { code, .. } => code.is_retriable(),
            _ => false,
        }
    }

    /// Who acts, and how.
    pub fn advice(&self) -> Option<&'static str> {
        Some(match self {
            Self::NoSeeds => "name one with -b host:port",
            Self::Unreachable { .. } => "start one with `varve serve`, or name another with -b host:port",
            Self::Connection { .. } => "try again; look at the broker's log if it stays",
            Self::Protocol { .. } => "check that -b names a Kafka listener without TLS",
            Self::Version { .. } => "the broker is too old or too new for this client",
            Self::NoTopic { .. } => "create it with `varve topic create`",
            Self::Refused { code, .. } if *code == ErrorCode::UnknownTopicOrPartition => return None,
            Self::Refused { code, .. } if code.is_retriable() => "try again later",
            Self::Corrupt { .. } => "check the broker's disk; `varve snapshot verify` checks its snapshots",
            Self::Unsound { .. } => {
                "its checksum is right: its producer wrote it so, and no disk is at fault; \
                 read on behind it with --partition and --offset"
            }
            Self::Refused { .. } | Self::NoBroker { .. } | Self::NoPartition { .. } => return None,
        })
    }
}

/// Turns an error number of a response into an error.
pub fn check(subject: &str, number: i16, message: Option<&str>) -> Result<(), ClientError> {
    match Code::of(number) {
        None => Ok(()),
        Some(code) => Err(ClientError::refused(subject.to_owned(), code, message.map(str::to_owned))),
    }
}
