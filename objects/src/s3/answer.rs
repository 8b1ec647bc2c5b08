//! What a server answered, and whose turn it is then.

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use object_store::client::HttpResponse;

use super::{Part, signed::describe};
use crate::Failure;

/// A whole answer.
pub(crate) struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// How much of an error's body is kept for people.
const ERROR_TEXT_MAX: usize = 512;

/// The error codes of a body that did not arrive as it was hashed.
const CORRUPT: [&str; 4] =
    ["BadDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch", "InvalidDigest"];
/// The error codes, beyond 401 and 403, that only an operator can change.
const DENIED: [&str; 5] = [
    "ExpiredToken",
    "InvalidToken",
    "TokenRefreshRequired",
    "RequestTimeTooSkewed",
    "AuthorizationHeaderMalformed",
];
/// The error codes of client errors that pass by themselves.
const TRANSIENT: [&str; 2] = ["RequestTimeout", "IncompleteBody"];
/// The error codes of a server that wants to be asked less often.
const BUSY: [&str; 6] = [
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "RequestLimitExceeded",
    "TooManyRequests",
    "ServiceUnavailable",
];

impl Answer {
    /// Takes in the whole body. One that ends early is an error of the client below, which knows its length.
    pub async fn read(response: HttpResponse) -> Result<Self, Failure> {
        let (parts, body) = response.into_parts();
        let body = body.bytes().await.map_err(|error| Failure::Retry(describe(&error)))?;
        Ok(Self { status: parts.status, headers: parts.headers, body })
    }

    /// The code in the XML of an error.
    pub fn code(&self) -> &str {
        let text = std::str::from_utf8(&self.body).unwrap_or_default();
        let after = text.split_once("<Code>").map_or("", |(_, after)| after);
        after.split_once("</Code>").map_or("", |(code, _)| code)
    }

    /// Whether a 404 speaks of the object: a missing bucket is a mistake in the configuration, not "nothing there".
    pub fn is_missing_object(&self) -> bool {
        self.code() != "NoSuchBucket"
    }

    /// Whose turn it is after an answer that was not hoped for.
    pub fn failure(&self) -> Failure {
        let code = self.code();
        let text: String = String::from_utf8_lossy(&self.body).chars().take(ERROR_TEXT_MAX).collect();
        let reason = format!("{} {text}", self.status);
        match self.status.as_u16() {
            _ if CORRUPT.contains(&code) => Failure::Corrupt(reason),
            _ if DENIED.contains(&code) => Failure::Denied(reason),
            _ if TRANSIENT.contains(&code) => Failure::Retry(reason),
            _ if BUSY.contains(&code) => Failure::Busy(reason),
            429 | 503 => Failure::Busy(reason),
            401 | 403 => Failure::Denied(reason),
            // 409: another create of this key is under way (S3 says ConditionalRequestConflict), and may yet fail.
            408 | 409 => Failure::Retry(reason),
            501 => Failure::Invalid(reason),
            500.. => Failure::Retry(reason),
            _ => Failure::Invalid(reason),
        }
    }

    pub fn content_length(&self) -> Result<u64, Failure> {
        let value = self.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
        let length = value.and_then(|value| value.parse().ok());
        length.ok_or_else(|| Failure::Invalid("the store does not tell the length of an object".into()))
    }

    /// The body of a partial answer, placed by its `Content-Range: bytes 0-9/100`.
    pub fn part(self) -> Result<Part, Failure> {
        let value = self.headers.get(header::CONTENT_RANGE).and_then(|value| value.to_str().ok());
        let (start, end, object_bytes) = value
            .and_then(parse_content_range)
            .ok_or_else(|| Failure::Invalid("the store does not tell which range it sent".into()))?;
        if end.checked_sub(start) != Some(self.body.len() as u64) || end > object_bytes {
            return Err(Failure::Retry("the body is not as long as its range".into()));
        }
        Ok(Part { start, object_bytes, bytes: self.body })
    }
}

fn parse_content_range(text: &str) -> Option<(u64, u64, u64)> {
    let (range, size) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let last: u64 = last.parse().ok()?;
    Some((first.parse().ok()?, last.checked_add(1)?, size.parse().ok()?))
}

/// Whose turn it is after a listing failed. The client hides the status of some errors in their text.
pub(super) fn list_failure(error: object_store::Error) -> Failure {
    let reason = describe(&error);
    if let Some(answer) = answer_in(&reason) {
        return answer.failure();
    }
    match error {
        object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => {
            Failure::Denied(reason)
        }
        object_store::Error::NotFound { .. }
        | object_store::Error::InvalidPath { .. }
        | object_store::Error::NotSupported { .. }
        | object_store::Error::NotImplemented { .. } => Failure::Invalid(reason),
        _ => Failure::Retry(reason),
    }
}

/// Finds `... status code: 403 Forbidden: {body}`.
fn answer_in(text: &str) -> Option<Answer> {
    let (_, after) = text.split_once("status code: ")?;
    let status = StatusCode::from_bytes(after.as_bytes().get(..3)?).ok()?;
    Some(Answer { status, headers: HeaderMap::new(), body: after.to_owned().into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, code: &str) -> Answer {
        Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers: HeaderMap::new(),
            body: format!("<Error><Code>{code}</Code><Message>x</Message></Error>").into(),
        }
    }

    #[test]
    fn fault_51_a_busy_store_is_asked_again() {
        for (status, code) in [(500, "InternalError"), (400, "RequestTimeout")] {
            assert!(matches!(answer(status, code).failure(), Failure::Retry(_)), "{status}");
        }
        for (status, code) in [(503, "SlowDown"), (503, ""), (429, ""), (400, "Throttling")] {
            assert!(matches!(answer(status, code).failure(), Failure::Busy(_)), "{status}");
        }
    }

    #[test]
    fn fault_54_a_409_is_asked_again_and_no_sign_that_the_key_is_taken() {
        assert!(matches!(answer(409, "ConditionalRequestConflict").failure(), Failure::Retry(_)));
    }

    #[test]
    fn fault_59_bad_credentials_and_a_wrong_clock_are_the_operators() {
        for (status, code) in [(403, "AccessDenied"), (400, "ExpiredToken"), (403, "RequestTimeTooSkewed")] {
            assert!(matches!(answer(status, code).failure(), Failure::Denied(_)), "{code}");
        }
    }

    #[test]
    fn a_missing_bucket_is_not_a_missing_object() {
        assert!(!answer(404, "NoSuchBucket").is_missing_object());
        assert!(answer(404, "NoSuchKey").is_missing_object());
        assert!(matches!(answer(404, "NoSuchBucket").failure(), Failure::Invalid(_)));
    }

    #[test]
    fn fault_56_a_part_that_contradicts_its_header_is_not_served() {
        let mut short = answer(206, "");
        short.headers.insert(header::CONTENT_RANGE, "bytes 0-999/2000".parse().unwrap());
        assert!(matches!(short.part(), Err(Failure::Retry(_))));
        assert_eq!(parse_content_range("bytes 2-4/9"), Some((2, 5, 9)));
        assert_eq!(parse_content_range("bytes 2-18446744073709551615/9"), None);
    }
}
