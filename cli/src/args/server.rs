//! The flags of `serve`, made from the table of keys: a key with a flag has one here, with its text and its default.

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command, FromArgMatches};
use varve_broker::config::{
    Config, ConfigError, Sources,
    keys::{KEYS, Key},
    value::Kind,
};

/// What `serve` was told on the command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerFlags {
    /// `--config`.
    pub file: Option<PathBuf>,
    /// Key and text of each flag and each `--set`, in the order that lets `--set` win.
    pub values: Vec<(String, String)>,
}

impl ServerFlags {
    /// The configuration that these flags, the environment and the file make together.
    pub fn load(&self, mut sources: Sources) -> Result<Config, ConfigError> {
        sources.file.clone_from(&self.file);
        sources.flags.clone_from(&self.values);
        Config::load(&sources)
    }
}

const FILE: &str = "config";
const SET: &str = "set";
const HEADING: &str = "Configuration";

fn flags() -> impl Iterator<Item = (&'static Key, String)> {
    KEYS.iter().filter_map(|key| key.flag().map(|flag| (key, flag)))
}

impl clap::Args for ServerFlags {
    fn augment_args(command: Command) -> Command {
        let file = Arg::new(FILE)
            .short('c')
            .long(FILE)
            .value_name("FILE")
            .value_parser(clap::value_parser!(PathBuf))
            .value_hint(clap::ValueHint::FilePath)
            .help("TOML file with any key of `varve config reference` [env: VARVE_CONFIG]")
            .help_heading(HEADING);
        let set = Arg::new(SET)
            .long(SET)
            .value_name("KEY=VALUE")
            .action(ArgAction::Append)
            .value_parser(super::key_value)
            .help("Any key of `varve config reference`, as --set log.segment.bytes=1MiB; may be repeated")
            .help_heading(HEADING);
        flags().fold(command.arg(file).arg(set), |command, (key, flag)| command.arg(argument(key, flag)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

fn argument(key: &'static Key, flag: String) -> Arg {
    let default = if key.default.is_empty() { "none" } else { key.default };
    let help = format!("{} [default: {default}] [env: {}]", key.doc, key.variable());
    let argument = Arg::new(key.name).long(flag).help(help).help_heading(HEADING);
    match key.kind {
        Kind::Switch | Kind::SwitchOrAuto => argument
            .value_name("true|false")
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true"),
        Kind::Integer { .. } => argument.value_name("NUMBER"),
        _ => argument.value_name("VALUE").allow_hyphen_values(false),
    }
}

impl FromArgMatches for ServerFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut flags = Self::default();
        flags.update_from_arg_matches(matches)?;
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.file = matches.get_one::<PathBuf>(FILE).cloned();
        self.values.clear();
        for (key, _) in flags() {
            if let Some(text) = matches.get_one::<String>(key.name) {
                self.values.push((key.name.to_owned(), text.clone()));
            }
        }
        if let Some(set) = matches.get_many::<(String, String)>(SET) {
            self.values.extend(set.cloned());
        }
        Ok(())
    }
}
