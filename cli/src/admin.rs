//! The admin address of a running node: one request, one answer.

#![allow(clippy::disallowed_types, reason = "the one place of the command line that speaks HTTP to a node")]

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use serde_json::Value;

const CONNECT_LIMIT: Duration = Duration::from_secs(3);
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// The longest answer that is read.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// What the node says of its storage.
pub fn storage(address: SocketAddr) -> io::Result<Value> {
    let body = ask(address, "GET", "/storage")?;
    serde_json::from_str(&body).map_err(io::Error::other)
}

/// Lets it read everything again.
pub fn start_scrub(address: SocketAddr) -> io::Result<()> {
    ask(address, "POST", "/storage/scrub").map(drop)
}

fn ask(address: SocketAddr, method: &str, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, CONNECT_LIMIT)?;
    stream.set_read_timeout(Some(ANSWER_LIMIT))?;
    stream.set_write_timeout(Some(ANSWER_LIMIT))?;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes())?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::InvalidData)?;
    let status = head.split(' ').nth(1).unwrap_or_default();
    if status.starts_with('2') {
        Ok(body.to_owned())
    } else {
        Err(io::Error::other(format!("{address} answered {status}")))
    }
}
