//! What the fuzz targets in `fuzz/` run on arbitrary bytes, and `tests/corpus.rs` on the corpus: each returns, and
//! asserts what holds for any input.

use bytes::{Bytes, BytesMut};

use crate::batch::compression::decompress;
use crate::batch::{Batches, Caps, Codec, Limits, Records, first_at_or_after, validate};
use crate::{decode_request, frame};

const FRAME_BYTES_MAX: usize = 1 << 16;
const CAPS: Caps = Caps { bytes_max: 1 << 20, ratio_max: 256 };

/// Splits a stream into frames: together with what is left they are the stream.
///
/// # Panics
/// A frame is lost, made up or too large.
pub fn frame_splitter(bytes: &[u8]) {
    let mut received = BytesMut::from(bytes);
    let mut taken = 0;
    while let Ok(Some(frame)) = frame::split(&mut received, FRAME_BYTES_MAX) {
        assert!(frame.len() <= FRAME_BYTES_MAX, "split keeps to its limit");
        assert_eq!(frame[..], bytes[taken + frame::PREFIX_BYTES..][..frame.len()], "frames keep their bytes");
        taken += frame::PREFIX_BYTES + frame.len();
    }
    assert_eq!(received[..], bytes[taken..], "the rest stays");
}

/// Decodes a request of any key and version; what decodes, encodes and decodes to the same.
///
/// # Panics
/// It does not.
pub fn request_header(bytes: &[u8]) {
    let Ok((header, request)) = decode_request(Bytes::copy_from_slice(bytes)) else {
        return;
    };
    let client_id = header.client_id.as_deref();
    let frame =
        request.encode(header.version, header.correlation_id, client_id).expect("what decodes encodes");
    let again = decode_request(frame.slice(frame::PREFIX_BYTES..)).expect("what is encoded decodes");
    assert_eq!(again, (header, request), "and to the same");
}

/// Validates, walks and searches batches.
///
/// # Panics
/// A batch passes the gate whose header does not read.
pub fn record_batch(bytes: &[u8]) {
    let is_valid = validate(bytes, &Limits { caps: CAPS, ..Limits::default() }).is_ok();
    let mut count = 0;
    for batch in Batches::new(bytes).map_while(Result::ok) {
        count += 1;
        if let Ok(records) = Records::read(&batch, CAPS) {
            records.iter().for_each(drop);
        }
        let _ = first_at_or_after(&batch, batch.meta().max_timestamp, CAPS);
    }
    assert!(!is_valid || count == 1, "a valid produce is one batch");
}

/// Decompresses with every codec.
///
/// # Panics
/// More comes out than the cap.
pub fn decompressors(bytes: &[u8]) {
    for codec in Codec::ALL {
        if let Ok(out) = decompress(codec, bytes, CAPS) {
            assert!(out.len() <= CAPS.bytes_max, "output is capped");
        }
    }
}
