//! Zigzag varints, as records have them.

/// Reads one off the front of `bytes`; `None` where it is cut short or longer than 64 bits.
pub(super) fn read(bytes: &mut &[u8]) -> Option<i64> {
    let mut raw: u64 = 0;
    for place in 0..10 {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        if place == 9 && byte > 1 {
            return None;
        }
        raw |= u64::from(byte & 0x7f) << (7 * place);
        if byte < 0x80 {
            return Some((raw >> 1) as i64 ^ -((raw & 1) as i64));
        }
    }
    None
}

/// Appends one.
pub(super) fn write(out: &mut Vec<u8>, value: i64) {
    let mut raw = ((value << 1) ^ (value >> 63)) as u64;
    while raw >= 0x80 {
        out.push(raw as u8 | 0x80);
        raw >>= 7;
    }
    out.push(raw as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extremes_round_trip_and_long_ones_are_refused() {
        for value in [0, -1, 1, 63, -64, 64, i64::MAX, i64::MIN, i64::from(i32::MIN)] {
            let mut out = Vec::new();
            write(&mut out, value);
            let mut rest = &out[..];
            assert_eq!((read(&mut rest), rest.len()), (Some(value), 0));
            assert_eq!(read(&mut &out[..out.len() - 1]), None);
        }
        assert_eq!(read(&mut &[0xff_u8; 11][..]), None);
    }
}
