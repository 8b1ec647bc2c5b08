//! Where a bucket is found: its URL, and names that mean this machine.

use std::net::{IpAddr, Ipv4Addr};

use object_store::client::{DnsFuture, DnsResolver};

use super::{Addressing, ConfigureError};

/// The URL of a bucket, without a slash at its end.
pub(super) fn bucket_url(
    endpoint: &str,
    bucket: &str,
    addressing: Addressing,
) -> Result<String, ConfigureError> {
    if addressing == Addressing::Path {
        return Ok(format!("{endpoint}/{bucket}"));
    }
    let (scheme, host) = endpoint
        .split_once("://")
        .ok_or_else(|| ConfigureError(format!("{endpoint:?} is not a URL of a server")))?;
    if host.contains('/') {
        return Err(ConfigureError(format!(
            "{endpoint:?} has a path: such a server takes buckets by path only"
        )));
    }
    if host_name(host).parse::<IpAddr>().is_ok() {
        let why = "an address cannot carry a bucket in front: use a name, or address buckets by path";
        return Err(ConfigureError(format!("{endpoint:?}: {why}")));
    }
    if scheme == "https" && bucket.contains('.') {
        let why = "no certificate covers a bucket with dots as part of a host name: address it by path";
        return Err(ConfigureError(format!("bucket {bucket:?}: {why}")));
    }
    Ok(format!("{scheme}://{bucket}.{host}"))
}

/// The host without its port, and an IPv6 address without its brackets.
fn host_name(host: &str) -> &str {
    match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.split_once(':').map_or(host, |(name, _)| name),
    }
}

/// Resolves every name below `localhost` to this machine, as RFC 6761 (6.3) has it and not every system does: so a
/// server on this machine can be asked for `bucket.localhost`.
#[derive(Debug)]
pub(super) struct Loopback;

impl Loopback {
    pub fn is_meant_by(url: &str) -> bool {
        let host = url.split_once("://").map_or(url, |(_, rest)| rest);
        let host = host.split_once('/').map_or(host, |(host, _)| host);
        host_name(host).ends_with(".localhost")
    }
}

impl DnsResolver for Loopback {
    fn resolve(&self, _: &str) -> DnsFuture {
        Box::pin(async { Ok(vec![IpAddr::V4(Ipv4Addr::LOCALHOST)]) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(endpoint: &str, bucket: &str, addressing: Addressing) -> Option<String> {
        bucket_url(endpoint, bucket, addressing).ok()
    }

    #[test]
    fn a_bucket_stands_in_the_path_or_in_front_of_the_host() {
        let server = "https://s3.eu-west-1.amazonaws.com";
        let by_path = url(server, "b", Addressing::Path);
        assert_eq!(by_path.as_deref(), Some("https://s3.eu-west-1.amazonaws.com/b"));
        let by_host = url(server, "b", Addressing::VirtualHost);
        assert_eq!(by_host.as_deref(), Some("https://b.s3.eu-west-1.amazonaws.com"));
        let with_port = url("http://s3.localhost:9000", "b.c", Addressing::VirtualHost);
        assert_eq!(with_port.as_deref(), Some("http://b.c.s3.localhost:9000"));
    }

    #[test]
    fn what_cannot_stand_in_front_of_a_host_is_refused() {
        for (endpoint, bucket) in [
            ("http://127.0.0.1:9000", "b"),
            ("http://[::1]:9000", "b"),
            ("https://h/path", "b"),
            ("https://h", "a.b"),
        ] {
            assert_eq!(url(endpoint, bucket, Addressing::VirtualHost), None, "{endpoint} {bucket}");
        }
    }

    #[test]
    fn names_below_localhost_are_this_machine() {
        assert!(
            Loopback::is_meant_by("http://b.localhost:9000")
                && Loopback::is_meant_by("http://b.s3.localhost")
        );
        assert!(
            !Loopback::is_meant_by("http://localhost:9000/b") && !Loopback::is_meant_by("https://b.s3.host")
        );
    }
}
