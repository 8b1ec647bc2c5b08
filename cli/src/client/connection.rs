//! One socket to one broker.

#![allow(
    clippy::disallowed_types,
    reason = "client commands connect to brokers: the one place here that does"
)]

use std::{
    collections::BTreeMap,
    io::{self, Read as _, Write as _},
    net::{TcpStream, ToSocketAddrs as _},
};

use bytes::{Bytes, BytesMut};
use varve_protocol::{
    ApiKey, ErrorCode, Request, Response, frame,
    messages::{ApiVersionsRequest, ApiVersionsResponse},
    response::split_response,
};

use super::ClientError;
use crate::limits;

/// What this client calls itself.
const CLIENT_ID: &str = "varve";

/// A connection whose broker has said which versions it speaks.
pub struct Connection {
    address: String,
    stream: TcpStream,
    received: BytesMut,
    versions: BTreeMap<i16, (i16, i16)>,
    correlation_id: i32,
}

impl Connection {
    /// Connects to `host[:port]` and negotiates.
    pub fn open(address: &str) -> Result<Self, ClientError> {
        let stream = connect(address)
            .map_err(|cause| ClientError::Unreachable { address: address.to_owned(), cause })?;
        let mut connection = Self {
            address: address.to_owned(),
            stream,
            received: BytesMut::new(),
            versions: BTreeMap::new(),
            correlation_id: 0,
        };
        connection.negotiate()?;
        Ok(connection)
    }

    /// ApiVersions 3; a broker that does not know it answers in version 0 with error 35, perhaps without the list.
    fn negotiate(&mut self) -> Result<(), ClientError> {
        let mut request = ApiVersionsRequest::default();
        request.client_software_name = CLIENT_ID.into();
        request.client_software_version = env!("CARGO_PKG_VERSION").into();
        let request = Request::ApiVersions(request);
        let body = self.exchange(&request, 3)?;
        let offered = match self.api_versions(3, body.clone()) {
            Ok(offered) => offered,
            Err(_) => self.api_versions(0, body)?,
        };
        let offered = if offered.error_code == ErrorCode::UnsupportedVersion.number() {
            let body = self.exchange(&Request::ApiVersions(ApiVersionsRequest::default()), 0)?;
            self.api_versions(0, body)?
        } else {
            offered
        };
        super::error::check("api versions", offered.error_code, None)?;
        self.versions =
            offered.api_keys.iter().map(|row| (row.api_key, (row.min_version, row.max_version))).collect();
        Ok(())
    }

    fn api_versions(&self, version: i16, body: Bytes) -> Result<ApiVersionsResponse, ClientError> {
        match self.decode(ApiKey::ApiVersions, version, body)? {
            Response::ApiVersions(offered) => Ok(offered),
            _ => unreachable!("a response is of its request's key"),
        }
    }

    /// The highest version that both sides speak.
    pub fn version(&self, key: ApiKey) -> Result<i16, ClientError> {
        let (first, last) = (key.api().first, spoken_last(key));
        let common = self.versions.get(&key.number()).map(|(low, high)| (first.max(*low), last.min(*high)));
        match common {
            Some((low, high)) if low <= high => Ok(high),
            _ => Err(ClientError::Version { address: self.address.clone(), key, first, last }),
        }
    }

    /// Asks and waits for the answer.
    pub fn call(&mut self, request: &Request) -> Result<Response, ClientError> {
        let version = self.version(request.key())?;
        let body = self.exchange(request, version)?;
        self.decode(request.key(), version, body)
    }

    /// Asks without waiting; returns the version. The broker must not answer (acks 0).
    pub fn send(&mut self, request: &Request) -> Result<i16, ClientError> {
        let version = self.version(request.key())?;
        self.write(request, version)?;
        Ok(version)
    }

    fn exchange(&mut self, request: &Request, version: i16) -> Result<Bytes, ClientError> {
        self.write(request, version)?;
        let frame = self.read_frame()?;
        let (correlation_id, body) = split_response(request.key(), version, frame)
            .map_err(|cause| self.protocol_error(cause.to_string()))?;
        if correlation_id != self.correlation_id {
            let cause = format!("response {correlation_id} to request {}", self.correlation_id);
            return Err(self.protocol_error(cause));
        }
        Ok(body)
    }

    fn write(&mut self, request: &Request, version: i16) -> Result<(), ClientError> {
        self.correlation_id = self.correlation_id.wrapping_add(1);
        let frame = request
            .encode(version, self.correlation_id, Some(CLIENT_ID))
            .map_err(|cause| self.protocol_error(cause.to_string()))?;
        self.stream.write_all(&frame).map_err(|cause| self.broken(cause))
    }

    fn read_frame(&mut self) -> Result<Bytes, ClientError> {
        let mut chunk = vec![0; limits::SOCKET_CHUNK_BYTES];
        loop {
            match frame::split(&mut self.received, limits::RESPONSE_BYTES_MAX) {
                Ok(Some(frame)) => return Ok(frame),
                Ok(None) => {}
                Err(cause) => return Err(self.protocol_error(cause.to_string())),
            }
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(self.broken(io::ErrorKind::UnexpectedEof.into())),
                Ok(count) => self.received.extend_from_slice(&chunk[..count]),
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
                Err(cause) => return Err(self.broken(cause)),
            }
        }
    }

    fn decode(&self, key: ApiKey, version: i16, body: Bytes) -> Result<Response, ClientError> {
        Response::decode(key, version, body).map_err(|cause| self.protocol_error(cause.to_string()))
    }

    fn broken(&self, cause: io::Error) -> ClientError {
        let cause = match cause.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                io::Error::new(io::ErrorKind::TimedOut, "no answer in time")
            }
            io::ErrorKind::UnexpectedEof => io::Error::new(cause.kind(), "closed by the broker"),
            _ => cause,
        };
        ClientError::Connection { address: self.address.clone(), cause }
    }

    fn protocol_error(&self, cause: String) -> ClientError {
        ClientError::Protocol { address: self.address.clone(), cause }
    }
}

/// Topics are named by name, never by id: they are known by name here.
fn spoken_last(key: ApiKey) -> i16 {
    match key {
        ApiKey::Produce | ApiKey::Fetch => 12,
        ApiKey::DeleteTopics => 5,
        ApiKey::OffsetCommit => 9,
        // One group at a time.
        ApiKey::OffsetFetch => 7,
        ApiKey::FindCoordinator => 3,
        // A group that is not there is dead.
        ApiKey::DescribeGroups => 5,
        _ => key.api().last,
    }
}

fn connect(address: &str) -> io::Result<TcpStream> {
    let mut refused = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for socket in with_port(address).to_socket_addrs()? {
        match TcpStream::connect_timeout(&socket, limits::CONNECT_TIMEOUT) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(limits::RESPONSE_TIMEOUT))?;
                stream.set_write_timeout(Some(limits::RESPONSE_TIMEOUT))?;
                return Ok(stream);
            }
            Err(cause) => refused = cause,
        }
    }
    Err(refused)
}

/// `host` is `host:9092`.
fn with_port(address: &str) -> String {
    let behind_bracket = address.rsplit(']').next().unwrap_or(address);
    if behind_bracket.contains(':') { address.to_owned() } else { format!("{address}:9092") }
}
