//! The length prefix: `i32 size`, then that many bytes.

use bytes::{Buf as _, Bytes, BytesMut};
use thiserror::Error;

/// Bytes of the length prefix.
pub const PREFIX_BYTES: usize = 4;

/// The peer does not speak Kafka, or asks for too much. The connection closes: nothing behind a bad prefix can be
/// trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FrameError {
    /// The size is below zero.
    #[error("frame of {size} bytes")]
    Negative {
        /// As claimed.
        size: i32,
    },
    /// The size is beyond the limit.
    #[error("frame of {size} bytes exceeds {limit}")]
    TooLarge {
        /// As claimed.
        size: usize,
        /// As allowed here.
        limit: usize,
    },
    /// The first bytes are those of another protocol on this port.
    #[error("{protocol} on the kafka port")]
    Foreign {
        /// Which.
        protocol: &'static str,
    },
}

/// Takes the first whole frame off `received`, without its prefix; `None` until all of it has arrived.
///
/// Never reserves room for a claimed size: the caller reads in chunks of its own choice, so a peer gets as much
/// memory as it has sent bytes. `bytes_max` is the caller's: less before authentication.
///
/// # Errors
/// The prefix is not one of an acceptable frame: close the connection.
pub fn split(received: &mut BytesMut, bytes_max: usize) -> Result<Option<Bytes>, FrameError> {
    let Some(prefix) = received.first_chunk::<PREFIX_BYTES>() else {
        return Ok(None);
    };
    let size = checked_size(*prefix, bytes_max)?;
    if received.len() - PREFIX_BYTES < size {
        return Ok(None);
    }
    received.advance(PREFIX_BYTES);
    Ok(Some(received.split_to(size).freeze()))
}

fn checked_size(prefix: [u8; PREFIX_BYTES], bytes_max: usize) -> Result<usize, FrameError> {
    let claimed = i32::from_be_bytes(prefix);
    let size = usize::try_from(claimed).map_err(|_| FrameError::Negative { size: claimed })?;
    if size <= bytes_max {
        return Ok(size);
    }
    match foreign_protocol(prefix) {
        Some(protocol) => Err(FrameError::Foreign { protocol }),
        None => Err(FrameError::TooLarge { size, limit: bytes_max }),
    }
}

/// What commonly lands on this port by mistake, so that the log can say so.
fn foreign_protocol(prefix: [u8; PREFIX_BYTES]) -> Option<&'static str> {
    match &prefix {
        b"GET " | b"POST" | b"PUT " | b"HEAD" | b"OPTI" | b"DELE" | b"PRI " => Some("http"),
        [0x16, 0x03, _, _] => Some("tls"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_for_the_whole_frame_and_leaves_the_rest() {
        let whole = [0, 0, 0, 2, 7, 8, 0, 0];
        for end in 0..6 {
            let mut received = BytesMut::from(&whole[..end]);
            assert_eq!(split(&mut received, 10), Ok(None));
            assert_eq!(received.len(), end);
        }
        let mut received = BytesMut::from(&whole[..]);
        assert_eq!(split(&mut received, 10), Ok(Some(Bytes::from_static(&[7, 8]))));
        assert_eq!(&received[..], &[0, 0]);
    }

    #[test]
    fn claimed_sizes_are_refused_before_anything_is_reserved() {
        let mut received = BytesMut::from(&[0x7f, 0xff, 0xff, 0xff][..]);
        let capacity = received.capacity();
        assert_eq!(split(&mut received, 100), Err(FrameError::TooLarge { size: 0x7fff_ffff, limit: 100 }));
        assert_eq!(received.capacity(), capacity);
        assert_eq!(split(&mut BytesMut::from(&[0xff; 4][..]), 100), Err(FrameError::Negative { size: -1 }));
    }

    #[test]
    fn http_and_tls_are_named() {
        let limit = 100 << 20;
        let refused = |bytes: &[u8]| split(&mut BytesMut::from(bytes), limit);
        assert_eq!(refused(b"GET / HTTP/1.1"), Err(FrameError::Foreign { protocol: "http" }));
        assert_eq!(refused(&[0x16, 0x03, 0x01, 0x02, 0]), Err(FrameError::Foreign { protocol: "tls" }));
    }
}
