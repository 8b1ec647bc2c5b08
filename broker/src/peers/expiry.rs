//! When a certificate ends: the one thing that is read of a certificate here, and not by the library that proves it.
//!
//! ```text
//! Certificate { TBSCertificate { [0] version, serial, algorithm, issuer, Validity { notBefore, notAfter } … } … }      (DER)
//! ```

use rustls::pki_types::{CertificateDer, pem::PemObject as _};

const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// When the certificates of a PEM file end, in seconds since 1970; those of which that cannot be read are left out.
#[must_use]
pub fn all(pem: &[u8]) -> Vec<i64> {
    let certificates = CertificateDer::pem_slice_iter(pem).filter_map(Result::ok);
    certificates.filter_map(|certificate| not_after(&certificate)).collect()
}

fn not_after(der: &[u8]) -> Option<i64> {
    let (certificate, _) = take(der, SEQUENCE)?;
    let (mut fields, _) = take(certificate, SEQUENCE)?;
    if fields.first() == Some(&VERSION) {
        fields = any(fields)?.2;
    }
    // Serial, algorithm, issuer.
    for _ in 0..3 {
        fields = any(fields)?.2;
    }
    let (validity, _) = take(fields, SEQUENCE)?;
    let (tag, text, _) = any(any(validity)?.2)?;
    seconds(tag, std::str::from_utf8(text).ok()?)
}

/// The first value: its tag, its content, and what is behind it.
fn any(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = der.split_first()?;
    let (first, mut rest) = rest.split_first()?;
    let mut length = usize::from(*first);
    if length >= 0x80 {
        let (bytes, behind) = rest.split_at_checked(length - 0x80).filter(|(bytes, _)| bytes.len() <= 4)?;
        length = bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
        rest = behind;
    }
    let (content, behind) = rest.split_at_checked(length)?;
    Some((*tag, content, behind))
}

fn take(der: &[u8], wanted: u8) -> Option<(&[u8], &[u8])> {
    any(der).filter(|(tag, ..)| *tag == wanted).map(|(_, content, behind)| (content, behind))
}

/// `YYMMDDhhmmssZ` or `YYYYMMDDhhmmssZ`.
fn seconds(tag: u8, text: &str) -> Option<i64> {
    let digits = text.strip_suffix('Z').filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
    let (year, rest) = match (tag, digits.len()) {
        (UTC_TIME, 12) => {
            let year: i64 = digits[..2].parse().ok()?;
            (if year < 50 { 2000 + year } else { 1900 + year }, &digits[2..])
        }
        (GENERALIZED_TIME, 14) => (digits[..4].parse().ok()?, &digits[4..]),
        _ => return None,
    };
    let field = |place: usize| -> Option<i64> { rest[2 * place..2 * place + 2].parse().ok() };
    let days = days(year, field(0).filter(|month| (1..=12).contains(month))?, field(1)?);
    Some(((days * 24 + field(2)?) * 60 + field(3)?) * 60 + field(4)?)
}

/// Days since 1970 of a date in the Gregorian calendar.
const fn days(year: i64, month: i64, day: i64) -> i64 {
    // Years begin in March, so that a leap day is a year's last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leaps = year / 4 - year / 100 + year / 400;
    year * 365 + leaps + (153 * month + 2) / 5 + day - 719_469
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_to_write_a_time_are_read_and_others_are_not() {
        assert_eq!(seconds(UTC_TIME, "700101000000Z"), Some(0));
        assert_eq!(seconds(UTC_TIME, "261122063338Z"), Some(1_795_329_218));
        assert_eq!(seconds(GENERALIZED_TIME, "20000229235959Z"), Some(951_868_799));
        assert_eq!(seconds(GENERALIZED_TIME, "21261029000000Z"), Some(4_948_905_600));
        for (tag, text) in
            [(UTC_TIME, "261322063338Z"), (UTC_TIME, "26112206333Z"), (SEQUENCE, "261122063338Z")]
        {
            assert_eq!(seconds(tag, text), None, "{text}");
        }
    }

    #[test]
    fn what_is_cut_has_no_end() {
        for der in [&b""[..], b"\x30", b"\x30\x82", b"\x30\x05\x30\x03\xa0\x09", b"\x30\x84\xff\xff\xff\xff"]
        {
            assert_eq!(not_after(der), None);
        }
    }
}
