//! Profiles of the AWS command line: `~/.aws/credentials` and `~/.aws/config`, whose texts the caller has read.
//!
//! ```text
//! credentials        config
//! [default]          [default]            one of this name per file; what both say, the
//! [backup]           [profile backup]     first file says
//! ```
//! A profile may hold a key pair, or a role with a token file (web identity). What needs a browser, another program or a
//! second request (single sign-on, `credential_process`, `source_profile`) is refused by name, never passed over.

use std::collections::BTreeMap;

use thiserror::Error;

use super::Credentials;

/// What a profile says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    /// Who asks, if it says.
    pub credentials: Option<Credentials>,
    /// The region.
    pub region: Option<String>,
    /// The server.
    pub endpoint: Option<String>,
}

/// Why a profile cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ProfileError {
    /// Neither file has it.
    #[error("profile {name} is in neither file")]
    Missing {
        /// The profile.
        name: String,
    },
    /// One half of a pair.
    #[error("profile {name} has {has} without {lacks}")]
    Half {
        /// The profile.
        name: String,
        /// What it has.
        has: &'static str,
        /// What belongs to it.
        lacks: &'static str,
    },
    /// Its credentials come in a way that is not known here.
    #[error(
        "profile {name} has {key}, which is not supported: eval \"$(aws configure export-credentials --profile {name} --format env)\" gives keys that are"
    )]
    Unsupported {
        /// The profile.
        name: String,
        /// What it has.
        key: &'static str,
    },
}

/// What gives credentials in ways that are not known here; the first that is found is named.
const UNSUPPORTED: [&str; 6] = [
    "source_profile",
    "credential_source",
    "sso_session",
    "sso_start_url",
    "login_session",
    "credential_process",
];

/// The profile `name` of these files. One that is missing is an error: `default` may be.
pub fn find(name: &str, credentials: &str, config: &str) -> Result<Profile, ProfileError> {
    let in_config = if name == "default" { name.to_owned() } else { format!("profile {name}") };
    let sections = [section(config, &in_config), section(credentials, name)];
    if sections.iter().all(Option::is_none) {
        return Err(ProfileError::Missing { name: name.to_owned() });
    }
    let settings: BTreeMap<String, String> = sections.into_iter().flatten().flatten().collect();
    let get = |key: &str| settings.get(key).filter(|value| !value.is_empty()).cloned();
    Ok(Profile {
        credentials: credentials_of(name, get)?,
        region: get("region"),
        endpoint: get("endpoint_url"),
    })
}

fn credentials_of(
    name: &str,
    get: impl Fn(&str) -> Option<String>,
) -> Result<Option<Credentials>, ProfileError> {
    let name = || name.to_owned();
    if let (Some(role_arn), Some(token_file)) = (get("role_arn"), get("web_identity_token_file")) {
        return Ok(Some(Credentials::WebIdentity {
            role_arn,
            token_file,
            session: get("role_session_name"),
        }));
    }
    // A role is taken with the keys of a profile, which may be this one: those keys are not what was meant.
    if let Some(key) = UNSUPPORTED[..2].iter().find(|key| get(key).is_some()) {
        return Err(ProfileError::Unsupported { name: name(), key });
    }
    let half = |has, lacks| Err(ProfileError::Half { name: name(), has, lacks });
    match (get("aws_access_key_id"), get("aws_secret_access_key")) {
        (Some(access_key), Some(secret_key)) => {
            let session_token = get("aws_session_token");
            return Ok(Some(Credentials::Static { access_key, secret_key, session_token }));
        }
        (Some(_), None) => return half("aws_access_key_id", "aws_secret_access_key"),
        (None, Some(_)) => return half("aws_secret_access_key", "aws_access_key_id"),
        (None, None) => {}
    }
    match UNSUPPORTED.iter().find(|key| get(key).is_some()) {
        Some(key) => Err(ProfileError::Unsupported { name: name(), key }),
        None if get("role_arn").is_some() => half("role_arn", "web_identity_token_file"),
        None => Ok(None),
    }
}

/// The settings of the section `[name]`. One that stands twice is put together, as the command line does.
fn section(text: &str, name: &str) -> Option<BTreeMap<String, String>> {
    let mut found: Option<BTreeMap<String, String>> = None;
    let mut inside = false;
    for line in text.lines() {
        let is_nested = line.starts_with([' ', '\t']);
        let line = without_comment(line).trim();
        if let Some(title) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            let words: Vec<&str> = title.split_whitespace().collect();
            inside = words.join(" ") == name;
            if inside {
                found.get_or_insert_default();
            }
        } else if let Some((key, value)) = line.split_once('=')
            && inside
            // Settings of a setting, such as those of `s3 =`.
            && !is_nested
            && let Some(settings) = &mut found
        {
            settings.insert(key.trim().to_lowercase(), value.trim().to_owned());
        }
    }
    found
}

/// A comment begins a line, or follows on a blank: `#` and `;` may stand in values.
fn without_comment(line: &str) -> &str {
    if line.starts_with(['#', ';']) {
        return "";
    }
    [" #", " ;", "\t#", "\t;"].iter().filter_map(|mark| line.find(mark)).min().map_or(line, |at| &line[..at])
}

#[cfg(test)]
mod tests {
    use super::*;

    const CREDENTIALS: &str = "
        # indented sections are sections all the same
[default]
aws_access_key_id = AKIADEFAULT
aws_secret_access_key = se#cret/+=
; the other
[ backup ]
AWS_ACCESS_KEY_ID=AKIABACKUP   # with a comment
aws_secret_access_key = two
aws_session_token = token==
[half]
aws_access_key_id = AKIAHALF
";
    const CONFIG: &str = "
[default]
region = eu-central-1
s3 =
  region = not-this-one
[profile backup]
region = eu-west-3
endpoint_url = http://127.0.0.1:9000
aws_secret_access_key = not-this-one
[profile web]
role_arn = arn:aws:iam::1:role/r
web_identity_token_file = /token
[profile sso]
sso_session = corp
[profile role]
role_arn = arn:aws:iam::1:role/r
source_profile = role
aws_access_key_id = AKIASOURCE
aws_secret_access_key = three
[profile process]
credential_process = /bin/true
[profile place]
region = us-west-2
[backup]
region = not-this-one
";

    fn keys(access_key: &str, secret_key: &str, token: Option<&str>) -> Option<Credentials> {
        Some(Credentials::Static {
            access_key: access_key.into(),
            secret_key: secret_key.into(),
            session_token: token.map(str::to_owned),
        })
    }

    fn found(name: &str) -> Result<Profile, ProfileError> {
        find(name, CREDENTIALS, CONFIG)
    }

    #[test]
    fn keys_and_region_are_put_together_from_both_files() {
        let default = found("default").unwrap();
        assert_eq!(default.credentials, keys("AKIADEFAULT", "se#cret/+=", None));
        assert_eq!((default.region.as_deref(), default.endpoint), (Some("eu-central-1"), None));
        let backup = found("backup").unwrap();
        assert_eq!(backup.credentials, keys("AKIABACKUP", "two", Some("token==")));
        assert_eq!(backup.region.as_deref(), Some("eu-west-3"));
        assert_eq!(backup.endpoint.as_deref(), Some("http://127.0.0.1:9000"));
    }

    #[test]
    fn a_role_with_a_token_file_and_a_profile_without_keys_are_profiles() {
        let web = Credentials::WebIdentity {
            role_arn: "arn:aws:iam::1:role/r".into(),
            token_file: "/token".into(),
            session: None,
        };
        assert_eq!(found("web").unwrap().credentials, Some(web));
        assert_eq!(found("place").unwrap().credentials, None);
    }

    #[test]
    fn what_cannot_be_used_is_refused_by_name() {
        let unsupported = |name: &str, key| Err(ProfileError::Unsupported { name: name.into(), key });
        assert_eq!(found("sso"), unsupported("sso", "sso_session"));
        assert_eq!(found("role"), unsupported("role", "source_profile"));
        assert_eq!(found("process"), unsupported("process", "credential_process"));
        assert_eq!(found("nobody"), Err(ProfileError::Missing { name: "nobody".into() }));
        let said = found("half").unwrap_err().to_string();
        assert_eq!(said, "profile half has aws_access_key_id without aws_secret_access_key");
    }

    #[test]
    fn no_secret_is_shown() {
        assert!(!format!("{:?}", found("default").unwrap()).contains("se#cret"));
    }
}
