//! Bytes to Kafka requests and back, and record batches as the log keeps them.
//!
//! The one room that knows the Kafka wire. It holds no socket: a connection hands it the bytes that arrived and
//! writes the bytes that it returns.
//!
//! ```text
//!  socket bytes --frame::split--> frame --request::decode_request--> (Header, Request)   the broker answers
//!  socket bytes <-----response::encode_response(key, version, correlation id, Response)-----'
//! ```
//!
//! - [`versions`] is the one table of what this broker speaks: API keys, version ranges, header versions, limits.
//!   Everything else asks it. What is not in it is refused before its body is looked at.
//! - [`frame`], [`request`], [`response`]: length prefix, header, body. Messages are the generated types of
//!   `kafka-wire`, re-exported by [`messages`]. Encoding is generic there, so calling it here only keeps its machine
//!   code in this crate; nobody else encodes. [`fetch`] is the one answer that leaves in pieces, its records as they lie.
//! - [`error_code`]: Kafka's numbers.
//! - [`batch`]: record batches v2 in place. They are never taken apart and re-encoded on the produce path: what a
//!   producer's CRC covers is stored, tiered and served as it came. Only base offset and leader epoch, which lie
//!   outside the CRC, are patched (and, under LogAppendTime, the timestamp, with a new CRC).
//!
//! Invariants: no input makes it panic; no allocation follows a claimed length before as many bytes have arrived;
//! every response leaves with the correlation id, header version and body version of its request.
//!
//! It may touch memory only.

pub mod batch;
pub mod election;
pub mod error_code;
pub mod fetch;
pub mod frame;
pub mod fuzz;
pub mod limits;
pub mod messages;
pub mod request;
pub mod response;
pub mod versions;

/// What the log of the metadata is called.
pub const METADATA_TOPIC: &str = "__cluster_metadata";

pub use error_code::ErrorCode;
pub use fetch::encode_fetch_response;
pub use frame::FrameError;
pub use request::{Header, Request, RequestError, decode_request};
pub use response::{Response, ResponseError, encode_response, encode_unsupported_api_versions};
pub use versions::{ApiKey, TABLE};
