//! What reads the object store without a broker: snapshots, history, and whether all of it is there.

use clap::Subcommand;

use super::StoreFlags;
use crate::output::OutputFlags;

/// Which partitions of a topic.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct PartitionFlags {
    /// Only these partitions, separated by commas [default: all]
    #[arg(
        short = 'p',
        long = "partitions",
        visible_alias = "partition",
        value_delimiter = ',',
        value_name = "PARTITION"
    )]
    numbers: Vec<i32>,
}

impl PartitionFlags {
    /// Those that are named, or all of a topic that has so many.
    pub fn of(&self, count: usize) -> Vec<i32> {
        let all = 0..i32::try_from(count).unwrap_or(i32::MAX);
        if self.numbers.is_empty() { all.collect() } else { self.numbers.clone() }
    }

    /// Those that are named; none for all.
    pub fn named(&self) -> &[i32] {
        &self.numbers
    }

    /// Whether this one is among them.
    pub fn holds(&self, number: i32) -> bool {
        self.numbers.is_empty() || self.numbers.contains(&number)
    }
}

/// Which records, and how they are printed.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ReadFlags {
    /// Where to start: start, end, an offset, +n after the start, -n before the end, @time (milliseconds, seconds, 2006-01-02, 2006-01-02T15:04:05Z, -1h); :to behind it stops before that. Beside it -o json is the same as -f json [default: start]
    #[arg(short = 'o', long = "offset", value_name = "FROM[:TO]", allow_hyphen_values = true)]
    pub offsets: Vec<String>,
    /// The same as -o start
    #[arg(long)]
    pub from_beginning: bool,
    #[command(flatten)]
    pub partitions: PartitionFlags,
    /// Stop after so many records [default: no limit]
    #[arg(short = 'n', long = "num", visible_alias = "max-messages", value_name = "COUNT")]
    pub count: Option<u64>,
    /// json prints one object per line; else %k key, %v value, %h headers, %t topic, %p partition, %o offset, %d milliseconds, %K %V bytes, %H count of headers, \n \t [default: %v\n]
    #[arg(short = 'f', long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// The same as -f json
    #[arg(long, conflicts_with = "format")]
    pub json: bool,
}

#[derive(Debug, Subcommand)]
pub enum SnapshotCommand {
    /// List snapshots of the metadata and of partitions, newest first
    List {
        #[command(flatten)]
        store: StoreFlags,
        /// Only of this topic: its name or id
        #[arg(short, long)]
        topic: Option<String>,
        #[command(flatten)]
        output: OutputFlags,
    },
    /// Show what one snapshot holds
    Show {
        /// Its key, or the uid that `list` prints
        id: String,
        #[command(flatten)]
        store: StoreFlags,
        #[command(flatten)]
        output: OutputFlags,
    },
    /// Read snapshots whole and check every checksum; exit code 1 when one is damaged
    Verify {
        /// A key or uid [default: all]
        id: Option<String>,
        /// Read all that they name, too: manifests and segments, each once; exit code 3 when something could not be read
        #[arg(long)]
        deep: bool,
        #[command(flatten)]
        store: StoreFlags,
        #[command(flatten)]
        output: OutputFlags,
    },
    /// Rehearse a restore: into a scratch directory that is removed, started, read from end to end, and compared with the object store by count and SHA-256; exit code 1 when something is damaged or differs, 3 when the store could not be read
    Drill(Drill),
}

/// A rehearsal.
#[derive(Clone, Debug, clap::Args)]
pub struct Drill {
    #[command(flatten)]
    pub store: StoreFlags,
    /// Copy and compare records of this topic only; may be repeated. Topics, their configurations and what groups have committed for what is copied are compared in any case
    #[arg(short, long = "topic", value_name = "TOPIC")]
    pub topics: Vec<String>,
    #[command(flatten)]
    pub partitions: PartitionFlags,
    /// Where the scratch directory is made; there must be room for a copy of what is compared [default: the directory for temporary files]
    #[arg(long, value_name = "DIR")]
    pub scratch: Option<std::path::PathBuf>,
    #[command(flatten)]
    pub output: OutputFlags,
}

#[derive(Debug, Subcommand)]
pub enum ArchiveCommand {
    /// List what can be read: topics, or the partitions of one; from where to where, how many segments and bytes
    Ls {
        /// Only this topic, by partition: its name or id
        topic: Option<String>,
        #[command(flatten)]
        store: StoreFlags,
        #[command(flatten)]
        output: OutputFlags,
    },
    /// Print records, one partition after the other, up to the end of what is in the object store
    Cat(Cat),
    /// Write records to files that other tools read, a directory a day; a file that is there whole is not written again
    Export(Export),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ExportFormat {
    Parquet,
    /// Arrow IPC files
    Arrow,
    /// A JSON object a line, as consume prints it
    Jsonl,
}

#[derive(Clone, Debug, clap::Args)]
pub struct Export {
    /// What to export: a topic's name or id
    pub topic: String,
    /// How files are written
    #[arg(long, value_enum, default_value = "parquet")]
    pub format: ExportFormat,
    /// Where to begin, in the words of `consume -o` [default: start]
    #[arg(long, value_name = "FROM", allow_hyphen_values = true)]
    pub from: Option<String>,
    /// Where to stop before [default: the end of what is in the object store]
    #[arg(long, value_name = "TO", allow_hyphen_values = true)]
    pub to: Option<String>,
    #[command(flatten)]
    pub partitions: PartitionFlags,
    /// A directory, or s3://bucket/prefix, which the same credentials must reach
    #[arg(
        short = 'o',
        long = "to-where",
        visible_alias = "output-dir",
        value_name = "DIR|s3://BUCKET/PREFIX"
    )]
    pub to_where: String,
    #[command(flatten)]
    pub store: StoreFlags,
    /// The same as for lists: JSON, a line a file
    #[arg(long)]
    pub json: bool,
}

impl Export {
    pub const fn output(&self) -> OutputFlags {
        OutputFlags::of(self.json)
    }
}

#[derive(Debug, clap::Args)]
pub struct Cat {
    /// What to read: a topic's name or id
    pub topic: String,
    #[command(flatten)]
    pub reading: ReadFlags,
    #[command(flatten)]
    pub store: StoreFlags,
}

#[derive(Debug, Subcommand)]
pub enum BucketCommand {
    /// Check every object against what names it: manifests, existence and length both ways; exit code 1 when something is damaged, 3 when something could not be read
    Verify {
        /// Only this topic: its name or id
        #[arg(short, long)]
        topic: Option<String>,
        /// Read every segment: checksums of objects, blocks and batches, and that offsets follow each other
        #[arg(long)]
        deep: bool,
        #[command(flatten)]
        store: StoreFlags,
        #[command(flatten)]
        output: OutputFlags,
    },
}
