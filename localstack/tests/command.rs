//! `varve-localstack` as a person runs it: a server with a bucket that has the settings that were asked for, as another client reads them.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use varve_localstack::{Kind, Server};
use varve_objects::{
    admin::{Admin, Versioning},
    s3::{Addressing, Credentials, Options},
};

const PATIENCE: Duration = Duration::from_secs(60);

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_varve-localstack"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// The program, ended in order.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-TERM", &self.0.id().to_string()]).status();
        let _ = self.0.wait();
    }
}

/// The settings of clients, once it has written them.
fn settings(running: &mut Running, file: &Path) -> BTreeMap<String, String> {
    let begin = Instant::now();
    loop {
        let text = fs::read_to_string(file).unwrap_or_default();
        let lines = text.lines().filter_map(|line| line.strip_prefix("export ")?.split_once('='));
        let found: BTreeMap<_, _> = lines.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        if found.len() == 4 {
            return found;
        }
        assert!(running.0.try_wait().unwrap().is_none(), "it has ended");
        assert!(begin.elapsed() < PATIENCE, "no settings: {text:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn admin(settings: &BTreeMap<String, String>, bucket: &str) -> Admin {
    let credentials = Credentials::Static {
        access_key: settings["AWS_ACCESS_KEY_ID"].clone(),
        secret_key: settings["AWS_SECRET_ACCESS_KEY"].clone(),
        session_token: None,
    };
    let options = Options {
        endpoint: Some(settings["AWS_ENDPOINT_URL_S3"].clone()),
        region: Some(settings["AWS_REGION"].clone()),
        bucket: bucket.to_owned(),
        addressing: Addressing::Path,
        credentials,
        ..Options::default()
    };
    Admin::new(options).unwrap()
}

#[tokio::test]
async fn a_bucket_has_the_settings_that_were_asked_for() {
    if Server::start_or_skip(Kind::Minio).await.is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("s3.env");
    let asked = ["--versioning", "enabled", "--encryption", "sse-s3", "--expire-old-versions-days", "7"];
    let fixed = ["minio", "--bucket", "mine", "--env-file", file.to_str().unwrap()];
    let mut running = Running(command(&[&fixed[..], &asked].concat()).spawn().unwrap());
    let admin = admin(&settings(&mut running, &file), "mine");
    assert_eq!(admin.versioning().await, Ok(Versioning::Enabled));
    assert_eq!(admin.encryption().await, Ok(Some("AES256".to_owned())));
    let rules = admin.lifecycle().await.unwrap();
    assert!(matches!(&rules[..], [rule] if rule.expires_old_versions && !rule.expires), "{rules:?}");
}

#[test]
fn what_a_server_does_not_have_and_what_nobody_has_is_said() {
    for (arguments, why) in [
        (["minio", "--versioning", "perhaps"], "enabled and suspended"),
        (["minio", "--encryption", "rot13"], "sse-s3"),
        (["minio", "--expire-days", "0"], "no number of days"),
    ] {
        let output = command(&arguments).stderr(Stdio::piped()).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && said.contains(why), "{said}");
    }
    if !Kind::Minio.is_installed() {
        return;
    }
    // MinIO refuses this rule.
    let output = command(&["minio", "--abort-uploads-days", "3"]).stderr(Stdio::piped()).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.contains("the lifecycle rule"), "{said}");
}
