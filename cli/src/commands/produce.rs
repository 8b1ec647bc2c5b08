//! `produce`.

use std::{
    io::{self, BufRead as _, IsTerminal as _, Read as _},
    sync::mpsc::{self, Receiver},
    thread,
    time::Instant,
};

use serde_json::json;
use varve_broker::config::Sources;

use crate::{
    args::Produce,
    client::producer::{NewRecord, Options, Producer, Written},
    failure::Failure,
    limits,
    output::{self, Format},
    pattern::Pattern,
    record,
};

/// How a line becomes a record.
enum Input {
    Pattern(Pattern),
    Json,
}

impl Input {
    fn parse(format: &str) -> Result<Self, Failure> {
        if format == "json" {
            return Ok(Self::Json);
        }
        let pattern = Pattern::parse(format).and_then(Pattern::for_reading);
        pattern.map(Self::Pattern).map_err(|why| Failure::usage(format!("-f {format:?}: {why}")))
    }

    fn read(&self, line: &[u8]) -> Result<NewRecord, String> {
        match self {
            Self::Pattern(pattern) => pattern.read(line),
            Self::Json => record::from_json(line),
        }
    }
}

pub fn run(flags: Produce, sources: &Sources) -> Result<(), Failure> {
    let input = Input::parse(&flags.format)?;
    let options = Options { codec: flags.codec.into(), acks: flags.acks.into(), partition: flags.partition };
    let mut client = super::client(&flags.brokers, sources);
    let mut session = Session {
        producer: Producer::open(&mut client, &flags.topic, options)?,
        input,
        key: flags.key.map(String::into_bytes),
        headers: flags.headers,
        topic: flags.topic.clone(),
        format: flags.output.format(),
        line: 0,
        count: 0,
    };
    let from_lines = flags.values.is_empty() || flags.values == ["-"];
    if from_lines {
        session.lines(&spawn_reader())?;
    } else {
        for value in &flags.values {
            session.record(value.as_bytes())?;
        }
        session.flush()?;
    }
    if session.format == Format::Table && io::stderr().is_terminal() {
        eprintln!("{} records written to {}", session.count, flags.topic);
    }
    Ok(())
}

struct Session<'a> {
    producer: Producer<'a>,
    input: Input,
    key: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
    topic: String,
    format: Format,
    line: u64,
    count: u64,
}

impl Session<'_> {
    /// Batches while lines come, writes as soon as they pause.
    fn lines(&mut self, lines: &Receiver<io::Result<Vec<u8>>>) -> Result<(), Failure> {
        while let Ok(first) = lines.recv() {
            let began = Instant::now();
            self.line(first)?;
            while began.elapsed() < limits::LINGER_MAX
                && let Ok(line) = lines.recv_timeout(limits::LINGER)
            {
                self.line(line)?;
            }
            self.flush()?;
        }
        Ok(())
    }

    /// What was read before the input failed is written all the same.
    fn line(&mut self, line: io::Result<Vec<u8>>) -> Result<(), Failure> {
        match line {
            Ok(line) => self.record(&line),
            Err(cause) => {
                self.flush()?;
                let advice = format!("the {} records before it are written", self.count);
                Err(Failure::failed(format!("standard input: {cause}"), &advice))
            }
        }
    }

    fn record(&mut self, line: &[u8]) -> Result<(), Failure> {
        self.line += 1;
        let mut record = match self.input.read(line) {
            Ok(record) => record,
            Err(why) => {
                self.flush()?;
                let advice = format!("mend it; {} records before it are written", self.count);
                return Err(Failure::failed(format!("line {}: {why}", self.line), &advice));
            }
        };
        record.key = record.key.or_else(|| self.key.clone());
        record.headers.extend(self.headers.iter().cloned());
        let (_, written) = self.producer.push(&record, super::now_ms())?;
        self.report(&written)
    }

    fn flush(&mut self) -> Result<(), Failure> {
        let written = self.producer.flush()?;
        self.report(&written)
    }

    fn report(&mut self, written: &[Written]) -> Result<(), Failure> {
        let mut lines = String::new();
        for batch in written {
            self.count += u64::from(batch.count);
            if self.format == Format::Table {
                continue;
            }
            for place in 0..i64::from(batch.count) {
                let offset = batch.base_offset.map(|base| base + place);
                let row = json!({"topic": self.topic, "partition": batch.partition, "offset": offset});
                lines.push_str(&format!("{row}\n"));
            }
        }
        if lines.is_empty() { Ok(()) } else { Ok(output::text(&lines)?) }
    }
}

/// Lines of standard input, read ahead by a thread so that a pause can be told from the end. The thread ends with
/// the input or with the process: nothing can wake a read of standard input.
fn spawn_reader() -> Receiver<io::Result<Vec<u8>>> {
    let (sender, lines) = mpsc::sync_channel(limits::LINES_AHEAD_MAX);
    thread::spawn(move || {
        let mut input = io::stdin().lock();
        loop {
            let line = read_line(&mut input);
            let ends = !matches!(line, Ok(Some(_)));
            let Some(line) = line.transpose() else { return };
            if sender.send(line).is_err() || ends {
                return;
            }
        }
    });
    lines
}

/// One line without its end; `None` at the end of the input.
fn read_line(input: &mut impl io::BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let count = input.by_ref().take(limits::LINE_BYTES_MAX + 1).read_until(b'\n', &mut line)?;
    if count as u64 > limits::LINE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a line is longer than 64 MiB"));
    }
    if count == 0 {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    }
    Ok(Some(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_keep_their_bytes_and_lose_their_end() {
        let mut input: &[u8] = b"a\r\n\n\xff\0\nlast";
        let mut lines = Vec::new();
        while let Some(line) = read_line(&mut input).unwrap() {
            lines.push(line);
        }
        assert_eq!(lines, [b"a\r".to_vec(), Vec::new(), vec![0xff, 0], b"last".to_vec()]);
    }
}
