//! An S3 server under measure, and the raw client beside the broker: ranged GETs and PUTs of the same bytes, with nothing
//! around them.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::runtime::Runtime;
use varve_common::{Digest, ObjectKey};
use varve_localstack::{
    Kind, Server,
    proxy::{Proxy, Rule},
};
use varve_objects::{Listed, S3, Store as _};

const BUCKET: &str = "bench";
/// Where brokers put their objects.
pub const PREFIX: &str = "p";

/// A `MinIO` with one bucket.
pub struct Store {
    server: Server,
    proxy: Option<Proxy>,
    raw: Arc<S3>,
    // The last to go: the proxy runs on it.
    runtime: Runtime,
}

impl Store {
    /// Starts it, and with a `latency` something in front that answers every GET so much later.
    pub fn start(latency: Option<Duration>) -> anyhow::Result<Self> {
        Self::start_with(latency, 1)
    }

    /// The same with a client of so many threads beside the one that waits.
    pub fn start_with(latency: Option<Duration>, threads: usize) -> anyhow::Result<Self> {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(threads).enable_all().build()?;
        let (server, proxy) = runtime.block_on(async {
            let server = Server::start(Kind::Minio).await?;
            server.create_bucket(BUCKET).await?;
            let proxy = match latency {
                None => None,
                Some(latency) => {
                    let proxy = Proxy::start(server.address(), 1).await?;
                    let rule = format!("slow-first:{} method=GET", latency.as_millis());
                    proxy.set_rules([rule.parse::<Rule>()?]);
                    Some(proxy)
                }
            };
            anyhow::Ok((server, proxy))
        })?;
        let endpoint = proxy.as_ref().map_or_else(|| server.endpoint.clone(), Proxy::endpoint);
        let options = varve_objects::s3::Options { endpoint: Some(endpoint), ..server.options(BUCKET) };
        let raw = {
            let _inside = runtime.enter();
            Arc::new(S3::new(options)?)
        };
        Ok(Self { server, proxy, raw, runtime })
    }

    /// Arguments of a broker whose tier is here.
    pub fn arguments(&self) -> Vec<String> {
        let endpoint = self.proxy.as_ref().map_or_else(|| self.server.endpoint.clone(), Proxy::endpoint);
        let url = format!("s3://{BUCKET}/{PREFIX}");
        ["--object-store", &url, "--s3-endpoint", &endpoint, "--s3-path-style=true"].map(str::to_owned).into()
    }

    /// Its credentials, as a broker's environment.
    pub fn environment(&self) -> Vec<(String, String)> {
        let server = &self.server;
        [
            ("AWS_ACCESS_KEY_ID", &server.access_key),
            ("AWS_SECRET_ACCESS_KEY", &server.secret_key),
            ("AWS_REGION", &server.region),
        ]
        .map(|(name, value)| (name.to_owned(), value.clone()))
        .into()
    }

    /// Begins an outage.
    pub fn stop(&mut self) {
        self.server.stop_keeping_data();
    }

    /// Ends it.
    pub fn resume(&mut self) -> anyhow::Result<()> {
        self.runtime.block_on(self.server.start_again())?;
        Ok(())
    }

    /// The segments in the bucket, in order.
    pub fn segments(&self) -> anyhow::Result<Vec<Listed>> {
        let page = self.runtime.block_on(self.raw.list(PREFIX, None))?;
        ensure!(!page.more, "a measured bucket holds less than a page of objects");
        Ok(page.objects.into_iter().filter(|object| object.key.as_str().contains("/seg/")).collect())
    }

    /// The checkpoints of one life of the cluster, the metadata's too.
    pub fn checkpoints(&self, life: u32) -> anyhow::Result<Vec<Listed>> {
        let (name, mut found, mut last) = (format!("/i{life:010}/"), Vec::new(), None);
        loop {
            let page = self.runtime.block_on(self.raw.list(PREFIX, last.as_ref()))?;
            last = page.objects.last().map(|object| object.key.clone());
            let is_wanted = |key: &str| key.contains(&name) && key.ends_with(".ckpt");
            found.extend(page.objects.into_iter().filter(|object| is_wanted(object.key.as_str())));
            if !page.more {
                return Ok(found);
            }
        }
    }

    /// The raw client.
    pub fn raw(&self) -> Arc<S3> {
        Arc::clone(&self.raw)
    }

    /// Runs something that asks the server.
    pub fn run<T>(&self, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
        self.runtime.block_on(work)
    }

    /// Reads all segments whole, so many at a time; the seconds it took, and what they hold.
    pub fn read_whole(&self, at_a_time: usize) -> anyhow::Result<(f64, Vec<Bytes>)> {
        let keys: Vec<ObjectKey> = self.segments()?.into_iter().map(|segment| segment.key).collect();
        let begin = Instant::now();
        let requests = keys.into_iter().map(|key| {
            let raw = Arc::clone(&self.raw);
            async move { raw.get(&key).await }
        });
        let read = stream::iter(requests).buffered(at_a_time).try_collect::<Vec<Bytes>>();
        let segments = self.runtime.block_on(read)?;
        Ok((begin.elapsed().as_secs_f64(), segments))
    }

    /// Reads ranges, so many at a time; the seconds it took.
    pub fn read(
        &self,
        ranges: Vec<(ObjectKey, std::ops::Range<u64>)>,
        at_a_time: usize,
    ) -> anyhow::Result<f64> {
        let begin = Instant::now();
        let requests = ranges.into_iter().map(|(key, range)| {
            let raw = Arc::clone(&self.raw);
            async move { raw.get_range(&key, range).await.map(drop) }
        });
        self.runtime.block_on(stream::iter(requests).buffered(at_a_time).try_collect::<Vec<()>>())?;
        Ok(begin.elapsed().as_secs_f64())
    }

    /// Puts objects of these sizes, so many at a time; the seconds it took.
    pub fn write(&self, round: usize, sizes: &[u64], at_a_time: usize) -> anyhow::Result<f64> {
        let longest = sizes.iter().max().context("something to put")?;
        let body = Bytes::from(crate::wire::noise(*longest as usize, 7));
        let begin = Instant::now();
        let requests = sizes.iter().enumerate().map(|(number, size)| {
            let (raw, body) = (Arc::clone(&self.raw), body.slice(..*size as usize));
            let key = ObjectKey::new(format!("raw/{round}/{number}"));
            async move {
                let sha256 = Digest::of(&body);
                raw.put_new(&key, body.into(), sha256).await
            }
        });
        self.runtime.block_on(stream::iter(requests).buffered(at_a_time).try_collect::<Vec<()>>())?;
        Ok(begin.elapsed().as_secs_f64())
    }
}
