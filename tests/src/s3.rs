//! An S3 server that can be stopped and started in the middle of a test.

use std::{
    net::SocketAddr,
    process::{Child, Command, Stdio},
};

use crate::{
    node::{self, Options},
    tool,
};

const KEY: &str = "varvetest";
const SECRET: &str = "varvetestsecret";
const BUCKET: &str = "varve";

/// A `MinIO` with one bucket, in a folder of its own.
#[derive(Debug)]
pub struct Store {
    folder: tempfile::TempDir,
    address: SocketAddr,
    child: Option<Child>,
}

impl Store {
    /// Starts it and makes the bucket.
    #[must_use]
    pub fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("varve-s3-").tempdir().unwrap();
        let mut store = Self { folder, address: node::free_address(), child: None };
        store.resume();
        store
    }

    /// Starts it again on the same data and port.
    pub fn resume(&mut self) {
        let log =
            std::fs::File::options().create(true).append(true).open(self.folder.path().join("log")).unwrap();
        let mut command = Command::new(tool::cache().join("bin/minio"));
        command
            .arg("server")
            .arg(self.folder.path().join("data"))
            .args(["--address", &self.address.to_string()]);
        command.args(["--console-address", "127.0.0.1:0", "--quiet"]);
        command.env("MINIO_ROOT_USER", KEY).env("MINIO_ROOT_PASSWORD", SECRET);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.child = Some(command.spawn().unwrap());
        let mut bucket = Command::new(tool::python());
        bucket.arg(tool::scripts().join("bucket.py")).args([&self.endpoint(), KEY, SECRET, BUCKET]);
        assert!(bucket.stdin(Stdio::null()).status().unwrap().success(), "the bucket could not be made");
    }

    /// kill -9: nobody answers any more.
    pub fn stop(&mut self) {
        let mut child = self.child.take().expect("the store is running");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// A node's options that put its tier here.
    #[must_use]
    pub fn options(&self, options: Options, prefix: &str) -> Options {
        let url = format!("s3://{BUCKET}/{prefix}");
        let options = options.args(&[
            "--object-store",
            &url,
            "--s3-endpoint",
            &self.endpoint(),
            "--s3-path-style=true",
        ]);
        options
            .env("AWS_ACCESS_KEY_ID", KEY)
            .env("AWS_SECRET_ACCESS_KEY", SECRET)
            .env("AWS_REGION", "us-east-1")
    }

    fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.stop();
        }
    }
}
