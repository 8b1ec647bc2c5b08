//! Profiles of the AWS command line, in the place of the standard chain that other tools give them.
//!
//! | first that is there | credentials |
//! |---|---|
//! | `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` | these keys |
//! | profile `s3.profile` (`AWS_PROFILE`) | its own; a profile that was named and cannot be used is an error |
//! | profile `default` | its own, if it has keys or a role with a token file |
//! | the rest of the chain | web identity, container, instance |
//!
//! Region and endpoint of the profile count where nobody else says any. The files are read when a bucket is used, once,
//! at the start.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use varve_objects::s3::{
    Credentials,
    profile::{self, Profile, ProfileError},
};

use super::layers::{LayerError, Layers, Origin};

/// The files of the AWS command line.
struct Files {
    credentials: PathBuf,
    config: PathBuf,
}

impl Files {
    fn of(environment: &BTreeMap<String, String>) -> Self {
        let variable = |name: &str| environment.get(name).filter(|text| !text.is_empty());
        let home = variable("HOME").or_else(|| variable("USERPROFILE")).map_or("", String::as_str);
        let path = |name: &str, file: &str| {
            variable(name).map_or_else(|| Path::new(home).join(".aws").join(file), PathBuf::from)
        };
        Self {
            credentials: path("AWS_SHARED_CREDENTIALS_FILE", "credentials"),
            config: path("AWS_CONFIG_FILE", "config"),
        }
    }

    fn find(&self, name: &str) -> Result<Result<Profile, ProfileError>, LayerError> {
        Ok(profile::find(name, &read(&self.credentials)?, &read(&self.config)?))
    }
}

/// The text of a file; none where there is no such file.
#[allow(clippy::disallowed_methods)]
fn read(path: &Path) -> Result<String, LayerError> {
    match std::fs::read_to_string(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(LayerError::Read { path: path.to_owned(), source })
        }
        text => Ok(text.unwrap_or_default()),
    }
}

/// Who asks for the bucket. Fills in what the profile says of where it is.
pub fn lay(layers: &mut Layers, environment: &BTreeMap<String, String>) -> Result<Credentials, LayerError> {
    let named = layers.get("s3.profile").clone();
    let name = named.text.trim();
    let files = Files::of(environment);
    let found = match (name.is_empty(), files.find(if name.is_empty() { "default" } else { name })?) {
        (_, Ok(found)) => found,
        // Nobody asked for it: the chain goes on.
        (true, Err(_)) => return Ok(Credentials::Chain),
        (false, Err(error)) => {
            let files = format!("{} and {}", files.credentials.display(), files.config.display());
            let expected = format!("a profile that can be used ({error}; read: {files})");
            let (text, origin) = (name.to_owned(), named.origin);
            return Err(LayerError::Value { name: "s3.profile".to_owned(), text, expected, origin });
        }
    };
    for (key, text) in [("s3.region", found.region), ("s3.endpoint", found.endpoint)] {
        if let Some(text) = text.filter(|_| layers.get(key).origin == Origin::Default) {
            layers.set(key, text, Origin::File(files.config.clone()))?;
        }
    }
    let has_keys = environment.get("AWS_ACCESS_KEY_ID").is_some_and(|text| !text.is_empty());
    Ok(found.credentials.filter(|_| !has_keys).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::super::{Config, Sources};
    use super::*;

    /// Sources with a home that has these files, and a bucket.
    #[allow(clippy::disallowed_methods, reason = "other programs write these files")]
    fn sources(home: &Path, environment: &[(&str, &str)]) -> Sources {
        let folder = home.join(".aws");
        std::fs::create_dir_all(&folder).unwrap();
        let credentials = "[default]\naws_access_key_id = D\naws_secret_access_key = d\n[backup]\naws_access_key_id = B\naws_secret_access_key = b\n";
        std::fs::write(folder.join("credentials"), credentials).unwrap();
        let config = "[profile backup]\nregion = eu-west-3\nendpoint_url = http://h:1\n[profile sso]\nsso_session = corp\n";
        std::fs::write(folder.join("config"), config).unwrap();
        let mut sources = Sources {
            flags: vec![("object.store".into(), "s3://bucket/prefix".into())],
            ..Sources::default()
        };
        sources.environment.insert("HOME".into(), home.display().to_string());
        let own = environment.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
        sources.environment.extend(own);
        sources
    }

    fn access_key(credentials: &Credentials) -> Option<&str> {
        match credentials {
            Credentials::Static { access_key, .. } => Some(access_key),
            _ => None,
        }
    }

    #[test]
    fn a_profile_stands_behind_keys_of_the_environment_and_before_the_rest_of_the_chain() {
        let home = tempfile::tempdir().unwrap();
        let s3 = |environment: &[(&str, &str)]| Config::load(&sources(home.path(), environment)).unwrap().s3;
        assert_eq!(access_key(&s3(&[]).credentials), Some("D"));
        let backup = s3(&[("AWS_PROFILE", "backup")]);
        assert_eq!(access_key(&backup.credentials), Some("B"));
        assert_eq!((backup.region.as_str(), backup.endpoint.as_deref()), ("eu-west-3", Some("http://h:1")));
        let both = s3(&[("AWS_PROFILE", "backup"), ("AWS_ACCESS_KEY_ID", "E"), ("AWS_REGION", "us-east-2")]);
        assert_eq!((both.credentials, both.region.as_str()), (Credentials::Chain, "us-east-2"));
        let nowhere = [("AWS_SHARED_CREDENTIALS_FILE", "/nowhere"), ("AWS_CONFIG_FILE", "/nowhere")];
        assert_eq!(s3(&nowhere).credentials, Credentials::Chain);
    }

    #[test]
    fn a_named_profile_that_cannot_be_used_is_refused_and_without_a_bucket_nothing_is_read() {
        let home = tempfile::tempdir().unwrap();
        for (name, said) in [("nobody", "is in neither file"), ("sso", "export-credentials --profile sso")] {
            let mut sources = sources(home.path(), &[("AWS_PROFILE", name)]);
            let refused = Config::load(&sources).unwrap_err().to_string();
            assert!(refused.contains(said) && refused.contains("environment AWS_PROFILE"), "{refused}");
            sources.flags.clear();
            assert_eq!(Config::load(&sources).unwrap().s3.credentials, Credentials::Chain);
        }
    }
}
