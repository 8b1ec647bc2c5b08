//! An S3 server that can be stopped and started in the middle of a test, and a proxy in front of it that fails as told.

use std::path::Path;

use tokio::runtime::Runtime;
use varve_localstack::{
    Bucket, Kind, Lifecycle, Server, Setup,
    proxy::{Proxy, Seen},
};

use crate::node::Options;

const BUCKET: &str = "varve";

/// A server with one bucket, in a folder of its own.
pub struct Store {
    server: Server,
    proxy: Option<Proxy>,
    // The last to go: the proxy runs on it.
    runtime: Runtime,
}

impl Store {
    /// Starts a `MinIO` and makes the bucket.
    #[must_use]
    pub fn start() -> Self {
        Self::start_of(Kind::Minio)
    }

    /// Starts a server of some kind and makes the bucket.
    #[must_use]
    pub fn start_of(kind: Kind) -> Self {
        Self::start_with(kind, Setup::default())
    }

    /// Starts a `MinIO` whose buckets can stand in front of a name.
    #[must_use]
    pub fn start_in_domain(domain: &str) -> Self {
        Self::start_with(Kind::Minio, Setup { domain: Some(domain.to_owned()), ..Setup::default() })
    }

    fn start_with(kind: Kind, setup: Setup) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let server = runtime.block_on(async {
            let server = Server::start_with(kind, setup).await.unwrap();
            server.create_bucket(BUCKET).await.unwrap();
            server
        });
        Self { server, proxy: None, runtime }
    }

    /// Puts a proxy in front, whose chance is drawn from `seed`.
    #[must_use]
    pub fn behind_proxy(mut self, seed: u64) -> Self {
        self.proxy = Some(self.runtime.block_on(Proxy::start(self.server.address(), seed)).unwrap());
        self
    }

    /// Starts it again on the same data and port.
    pub fn resume(&mut self) {
        self.runtime.block_on(self.server.start_again()).unwrap();
    }

    /// kill -9: nobody answers any more.
    pub fn stop(&mut self) {
        self.server.kill();
    }

    /// Replaces the proxy's rules by these lines.
    pub fn set_rules(&self, rules: &[&str]) {
        self.proxy().set_rules(rules.iter().map(|rule| rule.parse().unwrap()));
    }

    /// The requests that came by the proxy since [`Store::forget_seen`].
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        self.proxy().seen()
    }

    /// Begins to count requests afresh.
    pub fn forget_seen(&self) {
        self.proxy().forget_seen();
    }

    fn proxy(&self) -> &Proxy {
        self.proxy.as_ref().expect("the store was started with a proxy")
    }

    /// The keys in the bucket that contain `part`, in their order.
    #[must_use]
    pub fn keys(&self, part: &str) -> Vec<String> {
        let keys = self.runtime.block_on(self.bucket().keys()).unwrap();
        keys.into_iter().filter(|key| key.contains(part)).collect()
    }

    /// What an object holds.
    #[must_use]
    pub fn get(&self, key: &str) -> Vec<u8> {
        self.runtime.block_on(self.bucket().get(key)).unwrap()
    }

    /// Deletes an object behind the broker's back.
    pub fn delete(&self, key: &str) {
        self.runtime.block_on(self.bucket().delete(key)).unwrap();
    }

    /// Replaces an object behind the broker's back.
    pub fn overwrite(&self, key: &str, change: impl FnOnce(&mut Vec<u8>)) {
        self.runtime.block_on(async {
            let mut bytes = self.bucket().get(key).await.unwrap();
            change(&mut bytes);
            self.bucket().put(key, bytes).await.unwrap();
        });
    }

    /// Puts a changed copy of an object under another key, as somebody else who uses the bucket.
    pub fn put_copy(&self, key: &str, copy: &str, change: impl FnOnce(&mut Vec<u8>)) {
        self.runtime.block_on(async {
            let mut bytes = self.bucket().get(key).await.unwrap();
            change(&mut bytes);
            self.bucket().put(copy, bytes).await.unwrap();
        });
    }

    /// Lets the server delete objects by itself after so many days.
    pub fn let_objects_expire(&self, days: i32) {
        let lifecycle = Lifecycle { expire_days: Some(days), ..Lifecycle::default() };
        self.runtime.block_on(self.bucket().set_lifecycle("", lifecycle)).unwrap();
    }

    fn bucket(&self) -> Bucket {
        self.server.bucket(BUCKET)
    }

    /// A node's options that put its tier here.
    #[must_use]
    pub fn options(&self, options: Options, prefix: &str) -> Options {
        let url = format!("s3://{BUCKET}/{prefix}");
        let endpoint = self.endpoint();
        let options =
            options.args(&["--object-store", &url, "--s3-endpoint", &endpoint, "--s3-path-style=true"]);
        options
            .env("AWS_ACCESS_KEY_ID", self.server.access_key.as_str())
            .env("AWS_SECRET_ACCESS_KEY", self.server.secret_key.as_str())
            .env("AWS_REGION", self.server.region.as_str())
    }

    /// Lets a command find the tier here.
    pub fn show(&self, command: &mut std::process::Command, prefix: &str) {
        command.args(["--object-store", &format!("s3://{BUCKET}/{prefix}")]);
        command.args(["--s3-endpoint", &self.endpoint(), "--s3-path-style=true"]);
        command
            .env("AWS_ACCESS_KEY_ID", self.server.access_key.as_str())
            .env("AWS_SECRET_ACCESS_KEY", self.server.secret_key.as_str())
            .env("AWS_REGION", self.server.region.as_str());
    }

    /// A node's options that put its tier here and say nothing of credentials: those are profile `name` of the AWS command
    /// line, in files below `home`. The profile says where the server is, too.
    ///
    /// # Panics
    /// The files cannot be written.
    #[must_use]
    pub fn options_of_profile(&self, options: Options, prefix: &str, home: &Path, name: &str) -> Options {
        let folder = home.join(".aws");
        std::fs::create_dir_all(&folder).unwrap();
        let (access_key, secret_key) = (&self.server.access_key, &self.server.secret_key);
        let credentials = format!(
            "[default]\naws_access_key_id = wrong\naws_secret_access_key = wrong\n\n[{name}]\naws_access_key_id = {access_key}\naws_secret_access_key = {secret_key}\n"
        );
        std::fs::write(folder.join("credentials"), credentials).unwrap();
        let (endpoint, region) = (self.endpoint(), &self.server.region);
        let config = format!("[profile {name}]\nregion = {region}\nendpoint_url = {endpoint}\n");
        std::fs::write(folder.join("config"), config).unwrap();
        let options = options.args(&["--object-store", &format!("s3://{BUCKET}/{prefix}")]);
        options.env("HOME", home.display().to_string()).env("AWS_PROFILE", name)
    }

    fn endpoint(&self) -> String {
        self.proxy.as_ref().map_or_else(|| self.server.endpoint.clone(), Proxy::endpoint)
    }
}
