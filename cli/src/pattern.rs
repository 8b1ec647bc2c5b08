//! `-f`: how a record is written as text, and how text is read as a record.
//!
//! ```text
//! %k key  %v value  %h headers as a=b,c=d  %t topic  %p partition  %o offset  %d timestamp in milliseconds
//! %K %V bytes of key and value  %H count of headers  %% a percent sign  \n \t \r \0 \\
//! ```

use crate::{client::producer::NewRecord, record::Record};

/// A parsed `-f`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(Vec<u8>),
    Field(Field),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Key,
    Value,
    Headers,
    Topic,
    Partition,
    Offset,
    Timestamp,
    KeyBytes,
    ValueBytes,
    HeaderCount,
}

impl Pattern {
    /// Parses `-f`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut literal = Vec::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            match c {
                '%' => match chars.next() {
                    Some('%') => literal.push(b'%'),
                    letter => {
                        let field = letter.and_then(field).ok_or_else(|| unknown('%', letter))?;
                        if !literal.is_empty() {
                            parts.push(Part::Literal(std::mem::take(&mut literal)));
                        }
                        parts.push(Part::Field(field));
                    }
                },
                '\\' => {
                    let letter = chars.next();
                    literal.push(letter.and_then(escape).ok_or_else(|| unknown('\\', letter))?);
                }
                other => literal.extend(other.encode_utf8(&mut [0; 4]).bytes()),
            }
        }
        if !literal.is_empty() {
            parts.push(Part::Literal(literal));
        }
        Ok(Self(parts))
    }

    /// Appends `record` to `out`.
    pub fn write(&self, record: &Record, out: &mut Vec<u8>) {
        for part in &self.0 {
            match part {
                Part::Literal(bytes) => out.extend_from_slice(bytes),
                Part::Field(field) => write_field(*field, record, out),
            }
        }
    }

    /// Checks that records can be read with it: one record per line, fields that a record has, apart from each other.
    pub fn for_reading(mut self) -> Result<Self, String> {
        if let Some(Part::Literal(last)) = self.0.last_mut() {
            if last.last() == Some(&b'\n') {
                last.pop();
            }
            if last.is_empty() {
                self.0.pop();
            }
        }
        for (place, part) in self.0.iter().enumerate() {
            match part {
                Part::Literal(bytes) if bytes.contains(&b'\n') => {
                    return Err("a record is one line: \\n may stand at the end only".into());
                }
                Part::Field(
                    Field::Topic | Field::Offset | Field::KeyBytes | Field::ValueBytes | Field::HeaderCount,
                ) => return Err("records are read with %k, %v, %h, %p and %d only".into()),
                Part::Field(_) if matches!(self.0.get(place + 1), Some(Part::Field(_))) => {
                    return Err("two fields need something between them".into());
                }
                _ => {}
            }
        }
        Ok(self)
    }

    /// Reads one line. A field ends where the text behind it begins; the last takes the rest.
    pub fn read(&self, line: &[u8]) -> Result<NewRecord, String> {
        let mut record = NewRecord::default();
        let mut rest = line;
        for (place, part) in self.0.iter().enumerate() {
            match part {
                Part::Literal(bytes) => {
                    rest = rest.strip_prefix(&bytes[..]).ok_or_else(|| missing(bytes))?;
                }
                Part::Field(field) => {
                    let end = match self.0.get(place + 1) {
                        Some(Part::Literal(bytes)) => find(rest, bytes).ok_or_else(|| missing(bytes))?,
                        _ => rest.len(),
                    };
                    read_field(*field, &rest[..end], &mut record)?;
                    rest = &rest[end..];
                }
            }
        }
        if rest.is_empty() { Ok(record) } else { Err("text behind the last field".into()) }
    }
}

fn field(letter: char) -> Option<Field> {
    Some(match letter {
        'k' => Field::Key,
        'v' => Field::Value,
        'h' => Field::Headers,
        't' => Field::Topic,
        'p' => Field::Partition,
        'o' => Field::Offset,
        'd' => Field::Timestamp,
        'K' => Field::KeyBytes,
        'V' => Field::ValueBytes,
        'H' => Field::HeaderCount,
        _ => return None,
    })
}

fn escape(letter: char) -> Option<u8> {
    Some(match letter {
        'n' => b'\n',
        't' => b'\t',
        'r' => b'\r',
        '0' => 0,
        '\\' => b'\\',
        _ => return None,
    })
}

fn unknown(sign: char, letter: Option<char>) -> String {
    let letter = letter.map(String::from).unwrap_or_default();
    format!("{sign}{letter} means nothing: use %k %v %h %t %p %o %d %K %V %H %%, \\n \\t \\r \\0 \\\\")
}

fn write_field(field: Field, record: &Record, out: &mut Vec<u8>) {
    let sized = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len).to_string();
    match field {
        Field::Key => out.extend_from_slice(record.key.as_deref().unwrap_or_default()),
        Field::Value => out.extend_from_slice(record.value.as_deref().unwrap_or_default()),
        Field::Headers => {
            for (place, (key, value)) in record.headers.iter().enumerate() {
                out.extend_from_slice(if place == 0 { b"" } else { b"," });
                out.extend_from_slice(key.as_bytes());
                out.push(b'=');
                out.extend_from_slice(value.as_deref().unwrap_or_default());
            }
        }
        Field::Topic => out.extend_from_slice(record.topic.as_bytes()),
        Field::Partition => out.extend_from_slice(record.partition.to_string().as_bytes()),
        Field::Offset => out.extend_from_slice(record.offset.to_string().as_bytes()),
        Field::Timestamp => out.extend_from_slice(record.timestamp.to_string().as_bytes()),
        Field::KeyBytes => out.extend_from_slice(sized(&record.key).as_bytes()),
        Field::ValueBytes => out.extend_from_slice(sized(&record.value).as_bytes()),
        Field::HeaderCount => out.extend_from_slice(record.headers.len().to_string().as_bytes()),
    }
}

fn read_field(field: Field, text: &[u8], record: &mut NewRecord) -> Result<(), String> {
    match field {
        Field::Key => record.key = Some(text.to_vec()),
        Field::Value => record.value = Some(text.to_vec()),
        Field::Headers => {
            for pair in text.split(|byte| *byte == b',').filter(|pair| !pair.is_empty()) {
                let pair = String::from_utf8_lossy(pair);
                record.headers.push(parse_header(&pair)?);
            }
        }
        Field::Partition => record.partition = Some(number(text)?),
        Field::Timestamp => record.timestamp = Some(number(text)?),
        _ => unreachable!("for_reading refuses the others"),
    }
    Ok(())
}

/// `key=value`.
pub fn parse_header(text: &str) -> Result<(String, Option<Vec<u8>>), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| format!("header {text:?}: expected key=value"))?;
    Ok((key.to_owned(), Some(value.as_bytes().to_vec())))
}

fn number<T: std::str::FromStr>(text: &[u8]) -> Result<T, String> {
    let text = String::from_utf8_lossy(text);
    text.trim().parse().map_err(|_| format!("{text:?} is not a number"))
}

fn missing(bytes: &[u8]) -> String {
    format!("expected {:?}", String::from_utf8_lossy(bytes))
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            topic: "t".into(),
            partition: 2,
            offset: 9,
            timestamp: 1_700_000_000_000,
            key: Some(b"key".to_vec()),
            value: Some(b"a value: with, signs".to_vec()),
            headers: vec![("a".into(), Some(b"1".to_vec())), ("b".into(), None)],
        }
    }

    fn written(pattern: &str) -> String {
        let mut out = Vec::new();
        Pattern::parse(pattern).unwrap().write(&record(), &mut out);
        String::from_utf8(out).unwrap()
    }

    fn read(pattern: &str, line: &str) -> Result<NewRecord, String> {
        Pattern::parse(pattern)?.for_reading()?.read(line.as_bytes())
    }

    #[test]
    fn every_field_is_written() {
        assert_eq!(written(r"%t/%p@%o %d %k=%v\n"), "t/2@9 1700000000000 key=a value: with, signs\n");
        assert_eq!(written(r"%K %V %H %h 100%%\t\\"), "3 20 2 a=1,b= 100%\t\\");
    }

    #[test]
    fn what_is_written_is_read() {
        let line = written(r"%p:%d:%k:%v\n");
        let again = read(r"%p:%d:%k:%v\n", line.trim_end_matches('\n')).unwrap();
        let record = record();
        assert_eq!((again.partition, again.timestamp), (Some(2), Some(record.timestamp)));
        assert_eq!((again.key, again.value), (record.key, record.value));
    }

    #[test]
    fn a_line_that_does_not_fit_is_refused() {
        assert_eq!(read("%k %v", "nospace").unwrap_err(), "expected \" \"");
        assert!(read("%p %v", "x y").is_err());
        assert!(read("%v.", "a.b").is_err());
    }

    #[test]
    fn patterns_that_cannot_be_read_with_are_refused() {
        for pattern in ["%k%v", r"%k\n%v\n", "%o %v", "%"] {
            assert!(read(pattern, "").is_err(), "{pattern}");
        }
        assert!(Pattern::parse("%z").is_err());
        assert!(Pattern::parse(r"\q").is_err());
    }
}
