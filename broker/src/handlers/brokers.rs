//! Where clients are sent.

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
}

/// Every broker, as a client of this listener reaches it.
pub fn endpoints(node: &Node, context: &Context) -> Vec<Endpoint> {
    let image = node.backend.image();
    let other = |(id, broker): (&u32, &crate::node::Broker)| {
        let (host, port) = if *id == node.id.get() {
            Some(own(node, context))
        } else {
            broker.advertised.get(&*context.listener).cloned()
        }?;
        Some(Endpoint { id: wire_id(*id), host, port: i32::from(port), rack: broker.rack.clone() })
    };
    let mut endpoints: Vec<Endpoint> = image.brokers.iter().filter_map(other).collect();
    if !image.brokers.contains_key(&node.id.get()) {
        // Before this node's registration is applied, a client that reached it may still be told where it is.
        let (host, port) = own(node, context);
        endpoints.push(Endpoint { id: wire_id(node.id.get()), host, port: i32::from(port), rack: None });
    }
    endpoints
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

/// The node that answers for metadata; -1: nobody now.
pub fn controller(node: &Node) -> i32 {
    node.backend.image().controller.map_or(-1, |id| wire_id(id.get()))
}
