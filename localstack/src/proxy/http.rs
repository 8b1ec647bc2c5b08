//! As much of HTTP/1.1 as S3's clients and servers speak, with nothing in between that could mend a message.

use std::io;

use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader};

/// The longest head that is read.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// The longest body that is read: more than any object of Varve's has.
const BODY_BYTES_MAX: usize = 256 << 20;

/// A request or an answer, whole.
#[derive(Clone, Debug, Default)]
pub(super) struct Message {
    /// The request line or the status line.
    pub first: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Message {
    /// An error as S3 words it.
    pub fn error(status: u16, code: &str) -> Self {
        let body = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{code}</Code>\
             <Message>injected by the fault proxy</Message></Error>"
        );
        let headers = vec![("Content-Type".into(), "application/xml".into())];
        let mut message =
            Self { first: format!("HTTP/1.1 {status} {code}"), headers, body: body.into_bytes() };
        message.set_length();
        message
    }

    pub fn method(&self) -> &str {
        self.first.split(' ').next().unwrap_or_default()
    }

    /// Path and query of a request.
    pub fn target(&self) -> &str {
        self.first.split(' ').nth(1).unwrap_or_default()
    }

    /// The status of an answer.
    pub fn status(&self) -> u16 {
        self.first.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    pub fn remove(&mut self, name: &str) {
        self.headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
    }

    pub fn set(&mut self, name: &str, value: &str) {
        self.remove(name);
        self.headers.push((name.to_owned(), value.to_owned()));
    }

    pub fn set_length(&mut self) {
        let length = self.body.len().to_string();
        self.remove("Transfer-Encoding");
        self.set("Content-Length", &length);
    }

    /// Everything before the body.
    pub fn head(&self) -> Vec<u8> {
        let mut text = format!("{}\r\n", self.first);
        for (name, value) in &self.headers {
            text += &format!("{name}: {value}\r\n");
        }
        text += "\r\n";
        text.into_bytes()
    }

    pub fn bytes(&self) -> Vec<u8> {
        [self.head(), self.body.clone()].concat()
    }
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

async fn line<R: AsyncRead + Unpin>(from: &mut BufReader<R>) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    from.take(HEAD_BYTES_MAX as u64).read_until(b'\n', &mut line).await?;
    if line.pop() != Some(b'\n') {
        return if line.is_empty() { Ok(None) } else { Err(invalid("the line has no end")) };
    }
    let line = String::from_utf8(line).map_err(|_| invalid("the line is no text"))?;
    Ok(Some(line.trim_end_matches('\r').to_owned()))
}

/// Reads a head; `None` where the other side has closed.
pub(super) async fn read_head<R: AsyncRead + Unpin>(from: &mut BufReader<R>) -> io::Result<Option<Message>> {
    let Some(first) = line(from).await? else { return Ok(None) };
    let mut message = Message { first, ..Message::default() };
    loop {
        let line = line(from).await?.ok_or_else(|| invalid("the head has no end"))?;
        if line.is_empty() {
            return Ok(Some(message));
        }
        let (name, value) = line.split_once(':').ok_or_else(|| invalid("a header without a value"))?;
        message.headers.push((name.trim().to_owned(), value.trim().to_owned()));
    }
}

/// Reads the body that a head announces. Without a word about it a request has none, and an answer lasts to the end.
pub(super) async fn read_body<R: AsyncRead + Unpin>(
    from: &mut BufReader<R>,
    message: &mut Message,
    until_end: bool,
) -> io::Result<()> {
    if message.header("Transfer-Encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
        message.body = chunks(from).await?;
        message.set_length();
        return Ok(());
    }
    let length = message.header("Content-Length").and_then(|length| length.parse::<usize>().ok());
    match length {
        Some(length) if length > BODY_BYTES_MAX => return Err(invalid("the body is too long")),
        Some(length) => {
            message.body = vec![0; length];
            from.read_exact(&mut message.body).await?;
        }
        None if until_end => {
            from.take(BODY_BYTES_MAX as u64).read_to_end(&mut message.body).await?;
            message.set_length();
        }
        None => {}
    }
    Ok(())
}

async fn chunks<R: AsyncRead + Unpin>(from: &mut BufReader<R>) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let size = line(from).await?.ok_or_else(|| invalid("a chunk without a size"))?;
        let size = size.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(size, 16).map_err(|_| invalid("a chunk without a size"))?;
        if size == 0 {
            while line(from).await?.is_some_and(|trailer| !trailer.is_empty()) {}
            return Ok(body);
        }
        if body.len() + size > BODY_BYTES_MAX {
            return Err(invalid("the body is too long"));
        }
        let begin = body.len();
        body.resize(begin + size, 0);
        from.read_exact(&mut body[begin..]).await?;
        line(from).await?;
    }
}
