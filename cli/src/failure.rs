//! How a command ends when it does not end well.

use std::{fmt, io, process::ExitCode};

use varve_broker::config::ConfigError;

use crate::client::ClientError;

/// The command line is wrong.
const USAGE: u8 = 2;
/// Something could not be read, so nobody knows.
const UNREAD: u8 = 3;
/// With the number of the signal, as shells say it.
const SIGNALLED: u8 = 128;
/// It went wrong.
const FAILED: u8 = 1;

/// Why, and who acts.
#[derive(Debug)]
pub enum Failure {
    /// A command that could not be done.
    Failed { what: String, advice: Option<String> },
    /// A command that cannot be meant.
    Usage { what: String },
    /// Whoever read the output has read enough: not an error.
    OutputClosed,
    /// Somebody asked it to end, by this signal.
    Ended(i32),
    /// The output says it already.
    Reported,
    /// The output says what could not be read: whether it is damaged is not known.
    Unread,
}

impl Failure {
    pub fn failed(what: impl fmt::Display, advice: &str) -> Self {
        Self::Failed { what: what.to_string(), advice: Some(advice.to_owned()) }
    }

    pub fn usage(what: impl fmt::Display) -> Self {
        Self::Usage { what: what.to_string() }
    }

    /// One line on standard error, and the exit code.
    pub fn report(&self) -> ExitCode {
        if let Some(line) = self.line() {
            eprintln!("{line}");
        }
        ExitCode::from(self.exit_code())
    }

    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::OutputClosed => 0,
            Self::Failed { .. } | Self::Reported => FAILED,
            Self::Usage { .. } => USAGE,
            Self::Unread => UNREAD,
            Self::Ended(signal) => SIGNALLED + *signal as u8,
        }
    }

    pub fn line(&self) -> Option<String> {
        let one_line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        match self {
            Self::Failed { what, advice: Some(advice) } => {
                Some(format!("error: {}; {}", one_line(what), one_line(advice)))
            }
            Self::Failed { what, advice: None } => Some(format!("error: {}", one_line(what))),
            Self::Usage { what } => Some(format!("error: {}; see --help", one_line(what))),
            Self::Ended(signal) => Some(format!("error: ended by signal {signal}")),
            Self::OutputClosed | Self::Reported | Self::Unread => None,
        }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self::Failed { what: error.to_string(), advice: error.advice().map(str::to_owned) }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Usage { what: format!("configuration: {error}") }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::OutputClosed,
            _ => Self::Failed { what: error.to_string(), advice: None },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_line_and_says_who_acts() {
        let failure = Failure::from(ClientError::NoTopic { topic: "t".into() });
        let line = failure.line().unwrap();
        assert_eq!(line, "error: topic t does not exist; create it with `varve topic create`");
        assert_eq!(failure.exit_code(), 1);
        let several = Failure::usage("two\n  lines");
        assert_eq!(several.line().unwrap(), "error: two lines; see --help");
        assert_eq!(several.exit_code(), 2);
    }

    #[test]
    fn a_reader_that_goes_away_is_no_error() {
        let failure = Failure::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!((failure.exit_code(), failure.line()), (0, None));
    }
}
