//! Where clients are sent.

use varve_common::{GroupId, NodeId};
use varve_replica::metadata::Broker;

use crate::{net::Context, node::Node};

/// A broker as a client is told it.
pub struct Endpoint {
    /// Its node id.
    pub id: i32,
    /// Its host.
    pub host: String,
    /// Its port.
    pub port: i32,
    /// Its rack.
    pub rack: Option<String>,
    /// Whether it is heard of.
    pub is_alive: bool,
}

/// Every broker that is heard of, as a client of this listener reaches it.
pub fn endpoints(node: &Node, context: &Context) -> Vec<Endpoint> {
    let mut endpoints = registered(node, context);
    endpoints.retain(|endpoint| endpoint.is_alive);
    endpoints
}

/// Whether a node is heard of, and clients of this listener can reach it.
pub fn is_reachable(node: &Node, context: &Context, id: NodeId) -> bool {
    let image = node.backend.image();
    let known = image.brokers.get(&id);
    let is_known = id == node.id || known.is_some_and(|at| advertised(at, &context.listener).is_some());
    is_known && node.backend.is_alive(id)
}

/// Every broker, whether it is heard of or not.
pub fn registered(node: &Node, context: &Context) -> Vec<Endpoint> {
    let image = node.backend.image();
    let endpoint = |broker: &Broker| {
        let (host, port) = if broker.node == node.id {
            Some(own(node, context))
        } else {
            advertised(broker, &context.listener)
        }?;
        let (id, is_alive) = (wire_id(broker.node.get()), node.backend.is_alive(broker.node));
        Some(Endpoint { id, host, port: i32::from(port), rack: broker.rack.clone(), is_alive })
    };
    let mut endpoints: Vec<Endpoint> = image.brokers.values().filter_map(endpoint).collect();
    if !image.brokers.contains_key(&node.id) {
        // Before this node's registration is applied, a client that reached it may still be told where it is.
        let (host, port) = own(node, context);
        let id = wire_id(node.id.get());
        endpoints.push(Endpoint { id, host, port: i32::from(port), rack: None, is_alive: true });
    }
    endpoints
}

/// Where a broker says that clients of a listener reach it: `NAME=host:port`.
fn advertised(broker: &Broker, listener: &str) -> Option<(String, u16)> {
    let mut named = broker.advertised.iter().filter_map(|text| text.split_once('='));
    let (host, port) = named.find(|(name, _)| *name == listener)?.1.rsplit_once(':')?;
    Some((host.to_owned(), port.parse().ok()?))
}

/// What is advertised for this node, else the address that the client connected to: that one works for it.
fn own(node: &Node, context: &Context) -> (String, u16) {
    let listener = node.listeners.iter().find(|listener| listener.name == *context.listener);
    let advertised = listener.and_then(|listener| listener.advertised.clone());
    advertised.unwrap_or_else(|| (context.local.ip().to_canonical().to_string(), context.local.port()))
}

/// A node id on the wire.
pub fn wire_id(id: u32) -> i32 {
    i32::try_from(id).expect("node ids are below 2^24")
}

/// The node that clients send changes of the metadata to: whoever leads it, where they could reach that one, else this node, which
/// carries them there once somebody leads. Never nobody: librdkafka would wait for another broker to come or go, and a leader that
/// is elected is none.
pub fn controller(node: &Node, endpoints: &[Endpoint]) -> i32 {
    let leader = node.backend.leadership(GroupId::METADATA).map(|known| wire_id(known.leader.node().get()));
    let reached = leader.filter(|leader| endpoints.iter().any(|endpoint| endpoint.id == *leader));
    reached.unwrap_or_else(|| wire_id(node.id.get()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_is_reached_where_it_says_for_that_listener() {
        let named = ["IN=a:1", "OUT=[::1]:9092", "BAD=nowhere"].map(str::to_owned).to_vec();
        let broker = Broker {
            node: NodeId::new(2).unwrap(),
            epoch: 1,
            advertised: named,
            rack: None,
            peer: None,
            level: 0,
        };
        assert_eq!(advertised(&broker, "OUT"), Some(("[::1]".to_owned(), 9092)));
        assert_eq!(advertised(&broker, "IN"), Some(("a".to_owned(), 1)));
        assert_eq!((advertised(&broker, "BAD"), advertised(&broker, "MISSING")), (None, None));
    }
}
