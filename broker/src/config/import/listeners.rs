//! Kafka's listeners, `NAME://host:port`, as ours.

use std::collections::BTreeMap;

use super::{Fate, checked};

const UNPROVEN: &str = "clients are neither authenticated nor encrypted yet: only PLAINTEXT listeners";
const OPEN: &str = "reachable from other machines: say insecure = true if that is meant";

/// One listener.
struct Endpoint<'a> {
    name: &'a str,
    host: &'a str,
    port: &'a str,
}

fn endpoints(text: &str) -> Result<Vec<Endpoint<'_>>, String> {
    let endpoint = |item: &'_ str| -> Option<(usize, usize)> {
        let scheme = item.find("://")?;
        Some((scheme, item.rfind(':').filter(|port| *port > scheme + 2)?))
    };
    text.split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
        .map(|item| {
            let (scheme, port) =
                endpoint(item).ok_or_else(|| format!("{item}: expected NAME://host:port"))?;
            Ok(Endpoint { name: &item[..scheme], host: &item[scheme + 3..port], port: &item[port + 1..] })
        })
        .collect()
}

/// Those where clients connect. The controllers' are the nodes' own here.
fn for_clients<'a>(text: &'a str, said: &BTreeMap<&str, &str>) -> Result<Vec<Endpoint<'a>>, String> {
    let list = |name: &str| said.get(name).copied().unwrap_or_default();
    let controllers: Vec<&str> = list("controller.listener.names").split(',').map(str::trim).collect();
    let protocols: BTreeMap<&str, &str> = list("listener.security.protocol.map")
        .split(',')
        .filter_map(|pair| pair.split_once(':'))
        .map(|(name, protocol)| (name.trim(), protocol.trim()))
        .collect();
    let mut found = endpoints(text)?;
    found.retain(|endpoint| !controllers.contains(&endpoint.name));
    let is_plain = |name: &str| *protocols.get(name).unwrap_or(&name) == "PLAINTEXT";
    match found.iter().find(|endpoint| !is_plain(endpoint.name)) {
        Some(endpoint) => Err(format!("{}: {UNPROVEN}", endpoint.name)),
        None => Ok(found),
    }
}

fn named(endpoints: &[Endpoint<'_>], host: impl Fn(&str) -> String) -> String {
    let one = |endpoint: &Endpoint<'_>| {
        let address = format!("{}:{}", host(endpoint.host), endpoint.port);
        if endpoints.len() == 1 {
            address
        } else {
            format!("{}={address}", endpoint.name.to_ascii_lowercase())
        }
    };
    endpoints.iter().map(one).collect::<Vec<_>>().join(",")
}

/// `listeners` as `listen`.
pub fn listen(text: &str, said: &BTreeMap<&str, &str>) -> Result<Fate, String> {
    let found = for_clients(text, said)?;
    if found.is_empty() {
        return Ok(Fate::Needless("every node is broker and controller: peer.listen is where nodes meet"));
    }
    // Nothing between the slashes and the port is Kafka's word for all addresses.
    let host = |host: &str| match host {
        "" => "0.0.0.0".to_owned(),
        "localhost" => "127.0.0.1".to_owned(),
        host => host.to_owned(),
    };
    let value = named(&found, host);
    let is_open = value.split(',').any(|item| {
        let address = item.split_once('=').map_or(item, |(_, address)| address);
        !address.starts_with("127.") && !address.starts_with("[::1]")
    });
    let sound = |item: &str| {
        super::super::value::socket(item.split_once('=').map_or(item, |(_, address)| address)).is_some()
    };
    match value.split(',').find(|item| !sound(item)) {
        Some(item) => Err(format!("{item}: expected an address of this machine, not a name")),
        None => Ok(checked("listen", value, is_open.then_some(OPEN))),
    }
}

/// `advertised.listeners` as `advertise`.
pub fn advertise(text: &str, said: &BTreeMap<&str, &str>) -> Result<Fate, String> {
    let found = for_clients(text, said)?;
    Ok(checked("advertise", named(&found, str::to_owned), None))
}

/// `1@a:9093,2@b:9093` as `a:9093,b:9093`.
pub fn seeds(text: &str) -> String {
    let seed = |item: &str| item.trim().split_once('@').map_or(item.trim(), |(_, seed)| seed).to_owned();
    text.split(',').map(seed).collect::<Vec<_>>().join(",")
}
