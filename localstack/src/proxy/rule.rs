//! What goes wrong, for which requests, how often: as values and as one line of text.
//!
//! ```text
//! status:503:SlowDown method=PUT on=/seg/ chance=30 skip=2 times=5
//! ^ the fault         ^ which requests    ^ percent ^ not the first two, then five times
//! ```

use std::{fmt, str::FromStr, time::Duration};

/// What goes wrong with one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// This status and S3 code, and no effect.
    Status(u16, String),
    /// The effect, and then this status and code.
    StatusAfter(u16, String),
    /// Neither effect nor answer: the client's time-out.
    Hang,
    /// The effect and no answer.
    HangAfter,
    /// Neither effect nor answer until the rules are replaced; then both, also where the client has gone meanwhile.
    Hold,
    /// The effect, and no answer until the rules are replaced.
    HoldAfter,
    /// The connection is reset, with no effect.
    Reset,
    /// The effect, and then the connection is reset.
    ResetAfter,
    /// The connection is reset in the middle of the answer's body.
    ResetBody,
    /// The connection is closed in the middle of the answer's body.
    Truncate,
    /// Half of the answer's body, with a Content-Length that fits the half.
    Shorten,
    /// One byte of the answer's body is another.
    Alter,
    /// One byte in each so many of the answer's body is another, and always one: nothing of that size passes whole.
    AlterEach(usize),
    /// A Content-Length that is wrong by so much; the body is as it was.
    Length(i64),
    /// The answer begins after so long.
    SlowFirst(Duration),
    /// The answer's body comes at so many bytes a second.
    Slow(u64),
    /// A header of the request does not reach the server. Servers that check signatures refuse what was signed with it.
    StripRequest(String),
    /// A header of the answer does not reach the client.
    StripResponse(String),
    /// A listing is answered without its last key, or without any where it has one.
    ForgetListed,
}

/// A fault and the requests that it befalls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What goes wrong.
    pub fault: Fault,
    /// Only requests of this method.
    pub method: Option<String>,
    /// Only requests whose path and query contain this.
    pub on: String,
    /// Out of a hundred of those, by the proxy's seed.
    pub chance: u8,
    /// The first so many of those pass.
    pub skip: u32,
    /// Only so many times.
    pub times: Option<u32>,
}

impl Rule {
    /// Befalls every request.
    #[must_use]
    pub const fn new(fault: Fault) -> Self {
        Self { fault, method: None, on: String::new(), chance: 100, skip: 0, times: None }
    }

    pub(super) fn speaks_of(&self, method: &str, target: &str) -> bool {
        self.method.as_deref().is_none_or(|wanted| wanted == method) && target.contains(&self.on)
    }
}

/// A line that is no rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no rule: {1}")]
pub struct ParseRuleError(String, &'static str);

impl FromStr for Rule {
    type Err = ParseRuleError;

    fn from_str(text: &str) -> Result<Self, ParseRuleError> {
        let error = |why| ParseRuleError(text.to_owned(), why);
        let mut words = text.split_whitespace();
        let fault = words.next().and_then(fault).ok_or_else(|| error("it does not begin with a fault"))?;
        let mut rule = Self::new(fault);
        for word in words {
            let (name, value) = word.split_once('=').ok_or_else(|| error("expected name=value"))?;
            let number = || value.parse::<u32>().map_err(|_| error("expected a number"));
            match name {
                "method" => rule.method = Some(value.to_owned()),
                "on" => value.clone_into(&mut rule.on),
                "chance" => rule.chance = number()?.min(100) as u8,
                "skip" => rule.skip = number()?,
                "times" => rule.times = Some(number()?),
                _ => return Err(error("there are method, on, chance, skip, times")),
            }
        }
        Ok(rule)
    }
}

fn fault(word: &str) -> Option<Fault> {
    let mut parts = word.split(':');
    let name = parts.next()?;
    let mut status = || Some((parts.next()?.parse().ok()?, parts.next()?.to_owned()));
    Some(match name {
        "status" => status().map(|(status, code)| Fault::Status(status, code))?,
        "status-after" => status().map(|(status, code)| Fault::StatusAfter(status, code))?,
        "hang" => Fault::Hang,
        "hang-after" => Fault::HangAfter,
        "hold" => Fault::Hold,
        "hold-after" => Fault::HoldAfter,
        "reset" => Fault::Reset,
        "reset-after" => Fault::ResetAfter,
        "reset-body" => Fault::ResetBody,
        "truncate" => Fault::Truncate,
        "shorten" => Fault::Shorten,
        "alter" => Fault::Alter,
        "alter-each" => Fault::AlterEach(parts.next()?.parse().ok().filter(|bytes| *bytes > 0)?),
        "length" => Fault::Length(parts.next()?.parse().ok()?),
        "slow-first" => Fault::SlowFirst(Duration::from_millis(parts.next()?.parse().ok()?)),
        "slow" => Fault::Slow(parts.next()?.parse().ok().filter(|bytes| *bytes > 0)?),
        "strip-request" => Fault::StripRequest(parts.next()?.to_owned()),
        "strip-response" => Fault::StripResponse(parts.next()?.to_owned()),
        "forget-listed" => Fault::ForgetListed,
        _ => return None,
    })
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status, code) => write!(f, "status:{status}:{code}"),
            Self::StatusAfter(status, code) => write!(f, "status-after:{status}:{code}"),
            Self::Hang => f.write_str("hang"),
            Self::HangAfter => f.write_str("hang-after"),
            Self::Hold => f.write_str("hold"),
            Self::HoldAfter => f.write_str("hold-after"),
            Self::Reset => f.write_str("reset"),
            Self::ResetAfter => f.write_str("reset-after"),
            Self::ResetBody => f.write_str("reset-body"),
            Self::Truncate => f.write_str("truncate"),
            Self::Shorten => f.write_str("shorten"),
            Self::Alter => f.write_str("alter"),
            Self::AlterEach(bytes) => write!(f, "alter-each:{bytes}"),
            Self::Length(by) => write!(f, "length:{by}"),
            Self::SlowFirst(wait) => write!(f, "slow-first:{}", wait.as_millis()),
            Self::Slow(bytes) => write!(f, "slow:{bytes}"),
            Self::StripRequest(name) => write!(f, "strip-request:{name}"),
            Self::StripResponse(name) => write!(f, "strip-response:{name}"),
            Self::ForgetListed => f.write_str("forget-listed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_is_read_as_it_is_written() {
        let faults = "status:503:SlowDown status-after:500:InternalError hang hang-after hold hold-after reset reset-after reset-body \
            truncate shorten alter alter-each:512 length:-5 slow-first:1500 slow:1024 strip-request:range strip-response:etag forget-listed";
        for word in faults.split_whitespace() {
            assert_eq!(word.parse::<Rule>().unwrap().fault.to_string(), word);
        }
    }

    #[test]
    fn a_rule_says_which_requests_and_how_often() {
        let rule: Rule = "hang method=PUT on=/seg/ chance=30 skip=2 times=5".parse().unwrap();
        let wanted = Rule {
            fault: Fault::Hang,
            method: Some("PUT".into()),
            on: "/seg/".into(),
            chance: 30,
            skip: 2,
            times: Some(5),
        };
        assert_eq!(rule, wanted);
        assert!(rule.speaks_of("PUT", "/b/p/seg/1") && !rule.speaks_of("GET", "/b/p/seg/1"));
        for wrong in [
            "",
            "soon",
            "hang sometimes",
            "hang chance=x",
            "hang who=me",
            "slow:0",
            "alter-each:0",
            "status:503",
        ] {
            assert!(wrong.parse::<Rule>().is_err(), "{wrong}");
        }
    }
}
