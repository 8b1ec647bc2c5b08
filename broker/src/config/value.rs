//! How people write sizes, spans, switches and addresses, parsed once into what they mean.

use std::{fmt, net::SocketAddr, time::Duration};

/// What a key's value looks like: decides how it is parsed and how the reference shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any text.
    Text,
    /// A whole number within bounds.
    Integer {
        /// The least that is allowed.
        min: i64,
        /// The most that is allowed.
        max: i64,
    },
    /// Bytes: `268435456` or `256MiB`.
    Bytes {
        /// The least that is allowed.
        min: i64,
    },
    /// Bytes, or a share of the disk: `10%`, or `auto`.
    Share,
    /// The same, or `0` for none.
    ShareOrNone,
    /// Bytes, or a share of the memory: `10%`, or `auto`.
    MemoryShare,
    /// Milliseconds: `600000` or `10min`.
    Millis {
        /// The least that is allowed.
        min: i64,
    },
    /// `true` or `false`.
    Switch,
    /// `true`, `false` or `auto`.
    SwitchOrAuto,
    /// One of a few words.
    Choice(&'static [&'static str]),
    /// Text that must not be shown.
    Secret,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text => f.write_str("text"),
            Self::Integer { .. } => f.write_str("integer"),
            Self::Bytes { .. } => f.write_str("bytes"),
            Self::Share => f.write_str("bytes, share of the disk or auto"),
            Self::MemoryShare => f.write_str("bytes, share of the memory or auto"),
            Self::ShareOrNone => f.write_str("bytes, share of the disk, auto or 0"),
            Self::Millis { .. } => f.write_str("milliseconds"),
            Self::Switch => f.write_str("true or false"),
            Self::SwitchOrAuto => f.write_str("true, false or auto"),
            Self::Choice(words) => f.write_str(&words.join(", ")),
            Self::Secret => f.write_str("secret"),
        }
    }
}

impl Kind {
    /// Whether `text` is a value of this kind; the error says what is expected.
    pub fn check(self, text: &str) -> Result<(), String> {
        match self {
            Self::Text | Self::Secret => Ok(()),
            Self::Integer { min, max } => within(text.trim().parse().ok(), min, max)
                .ok_or_else(|| format!("an integer from {min} to {max}")),
            Self::Bytes { min } => within(bytes(text), min, i64::MAX)
                .ok_or_else(|| format!("bytes, as 1048576 or 1MiB, at least {min}")),
            Self::Share | Self::MemoryShare => {
                share(text).map(drop).ok_or_else(|| "bytes, a share such as 10%, or auto".into())
            }
            Self::ShareOrNone => share_or_none(text)
                .map(drop)
                .ok_or_else(|| "bytes, a share such as 10%, auto, or 0 for none".into()),
            Self::Millis { min } => within(millis(text), min, i64::MAX)
                .ok_or_else(|| format!("milliseconds, as 600000 or 10min, at least {min}")),
            Self::Switch => switch(text).map(drop).ok_or_else(|| "true or false".into()),
            Self::SwitchOrAuto if text == "auto" => Ok(()),
            Self::SwitchOrAuto => switch(text).map(drop).ok_or_else(|| "true, false or auto".into()),
            Self::Choice(words) if words.contains(&text) => Ok(()),
            Self::Choice(words) => Err(format!("one of {}", words.join(", "))),
        }
    }
}

fn within(value: Option<i64>, min: i64, max: i64) -> Option<()> {
    value.filter(|value| (min..=max).contains(value)).map(drop)
}

/// A size limit that may follow the disk, or the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// The key's own rule.
    Auto,
    /// This many bytes.
    Bytes(u64),
    /// This many hundredths of it, 1 to 100.
    Percent(u8),
}

impl Share {
    /// The limit in bytes where there are `all`; `auto` is the key's own rule.
    #[must_use]
    pub fn resolve(self, all: u64, auto: impl FnOnce(u64) -> u64) -> u64 {
        match self {
            Self::Auto => auto(all),
            Self::Bytes(bytes) => bytes,
            Self::Percent(percent) => all / 100 * u64::from(percent),
        }
    }
}

/// `auto`, `10%` or a size.
#[must_use]
pub fn share(text: &str) -> Option<Share> {
    let text = text.trim();
    if text == "auto" {
        return Some(Share::Auto);
    }
    if let Some(percent) = text.strip_suffix('%') {
        let percent = percent.trim().parse::<u8>().ok()?;
        return (1..=100).contains(&percent).then_some(Share::Percent(percent));
    }
    bytes(text).and_then(|bytes| u64::try_from(bytes).ok()).filter(|&bytes| bytes > 0).map(Share::Bytes)
}

/// The same, or `0`.
#[must_use]
pub fn share_or_none(text: &str) -> Option<Share> {
    if bytes(text.trim()) == Some(0) { Some(Share::Bytes(0)) } else { share(text) }
}

/// `268435456`, `256MiB`, `256 MB`, `-1`.
#[must_use]
pub fn bytes(text: &str) -> Option<i64> {
    with_unit(text, |unit| {
        Some(match unit.to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "kib" | "k" => 1 << 10,
            "mib" | "m" => 1 << 20,
            "gib" | "g" => 1 << 30,
            "tib" | "t" => 1 << 40,
            "kb" => 1_000,
            "mb" => 1_000_000,
            "gb" => 1_000_000_000,
            "tb" => 1_000_000_000_000,
            _ => return None,
        })
    })
}

/// `600000`, `10min`, `7d`, `-1`.
#[must_use]
pub fn millis(text: &str) -> Option<i64> {
    with_unit(text, |unit| {
        Some(match unit {
            "" | "ms" => 1,
            "s" => 1_000,
            "min" | "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        })
    })
}

fn with_unit(text: &str, factor: impl FnOnce(&str) -> Option<i64>) -> Option<i64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '-').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    number.parse::<i64>().ok()?.checked_mul(factor(unit.trim())?)
}

/// `true` or `false`; a flag that was given without a value arrives as `true`.
#[must_use]
pub fn switch(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

/// A span that a key of [`Kind::Millis`] holds; negative ones are `None`.
#[must_use]
pub fn span(text: &str) -> Option<Duration> {
    millis(text).and_then(|ms| u64::try_from(ms).ok()).map(Duration::from_millis)
}

/// `127.0.0.1:9092`, `[::1]:9092`, `localhost:9092`, `:9092` (loopback).
#[must_use]
pub fn socket(text: &str) -> Option<SocketAddr> {
    let text = text.trim();
    let loopback = text.strip_prefix("localhost").unwrap_or(text);
    if let Some(port) = loopback.strip_prefix(':') {
        return port.parse().ok().map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    }
    text.parse().ok()
}

/// `host:port` as clients are told it; the host may be a name or an address.
#[must_use]
pub fn host_port(text: &str) -> Option<(String, u16)> {
    let (host, port) = text.trim().rsplit_once(':')?;
    Some((host_name(host)?, port.parse().ok().filter(|&port| port != 0)?))
}

/// A host, with or without a port.
pub fn host_and_port(text: &str) -> Option<(String, Option<u16>)> {
    let text = text.trim();
    let is_bare = !text.contains(':') || text.ends_with(']');
    match host_port(text) {
        Some((host, port)) => Some((host, Some(port))),
        None if is_bare => Some((host_name(text)?, None)),
        None => None,
    }
}

fn host_name(host: &str) -> Option<String> {
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let sound = !host.is_empty() && !host.chars().any(|c| c.is_whitespace() || c.is_control() || c == '/');
    sound.then(|| host.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_spans_read_as_people_write_them() {
        assert_eq!(bytes("256MiB"), Some(256 << 20));
        assert_eq!(bytes(" 8 GiB "), Some(8 << 30));
        assert_eq!(bytes("-1"), Some(-1));
        assert_eq!(bytes("9999999999GiB"), None);
        assert_eq!(bytes("many"), None);
        assert_eq!(millis("10min"), Some(600_000));
        assert_eq!(millis("9223372036854775807"), Some(i64::MAX));
        assert_eq!(millis("7 d"), Some(604_800_000));
        assert_eq!(share("10%"), Some(Share::Percent(10)));
        assert_eq!(share("0%"), None);
        assert_eq!(share("0"), None);
        assert_eq!(share("auto"), Some(Share::Auto));
    }

    #[test]
    fn addresses_are_taken_apart() {
        assert_eq!(socket("localhost:9092"), Some(SocketAddr::from(([127, 0, 0, 1], 9092))));
        assert_eq!(socket("[::1]:9092").map(|a| a.ip().is_loopback()), Some(true));
        assert_eq!(socket("example.org:9092"), None);
        assert_eq!(host_port("[::1]:9092"), Some(("::1".into(), 9092)));
        assert_eq!(host_port("broker-0.varve:9092"), Some(("broker-0.varve".into(), 9092)));
        assert_eq!(host_port("broker"), None);
        assert_eq!(host_port("broker:0"), None);
        assert_eq!(host_and_port("broker:9092"), Some(("broker".into(), Some(9092))));
        assert_eq!(host_and_port("broker"), Some(("broker".into(), None)));
        assert_eq!(host_and_port("[::1]"), Some(("::1".into(), None)));
        assert_eq!((host_and_port("broker:many"), host_and_port("")), (None, None));
    }
}
