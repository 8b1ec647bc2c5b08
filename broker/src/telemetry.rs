//! Logs: one line per event on standard error, as people or as machines read them.

use std::{fmt, io::IsTerminal as _};

use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    EnvFilter,
    fmt::{
        FmtContext, FormatEvent, FormatFields, MakeWriter,
        format::Writer,
        time::{FormatTime, SystemTime},
    },
    registry::LookupSpan,
};

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people: colours on a terminal.
    Pretty,
    /// `time=… level=… target=… msg=… key=value`.
    Logfmt,
    /// One object.
    Json,
}

impl Format {
    /// The format that `log.format` names; `auto` asks whether somebody looks.
    #[must_use]
    pub fn from_config(text: &str) -> Self {
        match text {
            "json" => Self::Json,
            "pretty" => Self::Pretty,
            "auto" if std::io::stderr().is_terminal() => Self::Pretty,
            _ => Self::Logfmt,
        }
    }
}

/// Logging that cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter is not one.
    #[error("log filter {filter:?}: {why}")]
    Filter {
        /// The text.
        filter: String,
        /// What is wrong with it.
        why: String,
    },
    /// Somebody set up logging before.
    #[error("logging is set up already")]
    Twice,
}

/// Sets up logging for the process.
pub fn start(format: Format, filter: &str) -> Result<(), TelemetryError> {
    let subscriber = subscriber(format, filter, std::io::stderr)?;
    tracing::subscriber::set_global_default(subscriber).map_err(|_| TelemetryError::Twice)
}

fn subscriber<W>(
    format: Format,
    filter: &str,
    writer: W,
) -> Result<Box<dyn Subscriber + Send + Sync>, TelemetryError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::try_new(filter)
        .map_err(|error| TelemetryError::Filter { filter: filter.to_owned(), why: error.to_string() })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    Ok(match format {
        Format::Pretty => Box::new(builder.with_ansi(std::io::stderr().is_terminal()).finish()),
        Format::Json => Box::new(builder.json().flatten_event(true).finish()),
        Format::Logfmt => Box::new(builder.event_format(Logfmt).finish()),
    })
}

struct Logfmt;

impl<S, N> FormatEvent<S, N> for Logfmt
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let level = event.metadata().level().as_str().to_ascii_lowercase();
        writer.write_str("time=")?;
        SystemTime.format_time(&mut writer)?;
        write!(writer, " level={level} target={}", event.metadata().target())?;
        let mut fields = Fields { writer: &mut writer, result: Ok(()) };
        event.record(&mut fields);
        fields.result?;
        writeln!(writer)
    }
}

struct Fields<'a, 'w> {
    writer: &'a mut Writer<'w>,
    result: fmt::Result,
}

impl Fields<'_, '_> {
    fn put(&mut self, field: &Field, value: &str) {
        let name = if field.name() == "message" { "msg" } else { field.name() };
        let plain = !value.is_empty()
            && !value.contains(|c: char| c.is_whitespace() || c.is_control() || c == '"' || c == '=');
        self.result = self.result.and_then(|()| {
            if plain {
                write!(self.writer, " {name}={value}")
            } else {
                write!(self.writer, " {name}={value:?}")
            }
        });
    }
}

impl Visit for Fields<'_, '_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, &format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use super::*;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: Format, filter: &str) -> String {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let subscriber = subscriber(format, filter, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(offset = 7, topic = "a b", "two words\nand a line");
            tracing::debug!("not wanted");
        });
        let bytes = buffer.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn logfmt_is_one_line_whatever_the_values_hold() {
        let text = logged(Format::Logfmt, "info");
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.starts_with("time="), "{text}");
        assert!(text.contains(" level=info target=varve_broker::telemetry::tests "), "{text}");
        assert!(text.ends_with(" msg=\"two words\\nand a line\" offset=7 topic=\"a b\"\n"), "{text}");
    }

    #[test]
    fn json_is_one_object_per_line() {
        let text = logged(Format::Json, "info");
        let object: serde_json::Value = serde_json::from_str(text.trim_end()).unwrap();
        assert_eq!((object["offset"].as_i64(), object["topic"].as_str()), (Some(7), Some("a b")));
    }

    #[test]
    fn the_filter_decides_and_a_wrong_one_is_named() {
        assert_eq!(logged(Format::Pretty, "off"), "");
        assert!(logged(Format::Pretty, "varve_broker=debug").contains("not wanted"));
        assert!(start(Format::Json, "a=b=c").unwrap_err().to_string().contains("a=b=c"));
    }
}
