//! ListConfigResources: what has configurations. Version 0 asks for subscriptions to clients' metrics, of which there are none.

use varve_protocol::ErrorCode;
use varve_protocol::messages::{
    ListConfigResourcesRequest, ListConfigResourcesResponse, StrBytes,
    list_config_resources_response::ConfigResource,
};

use super::{
    access::{Operation, Resource, authorize},
    brokers::wire_id,
};
use crate::{net::Context, node::Node};

/// From here on a client says which kinds it wants; none: all.
const KINDS_FROM: i16 = 1;
const TOPIC: i8 = 2;
const BROKER: i8 = 4;
/// What a client may ask for, and what has nothing here: loggers of brokers, clients' metrics, groups.
const KINDS: [i8; 5] = [TOPIC, BROKER, 8, 16, 32];

pub fn answer(
    node: &Node,
    context: &Context,
    version: i16,
    request: &ListConfigResourcesRequest,
) -> ListConfigResourcesResponse {
    let mut response = ListConfigResourcesResponse::default();
    if let Err(code) = authorize(context, Operation::DescribeConfigs, Resource::Cluster) {
        response.error_code = code.number();
        return response;
    }
    if version < KINDS_FROM {
        return response;
    }
    if request.resource_types.iter().any(|kind| !KINDS.contains(kind)) {
        response.error_code = ErrorCode::UnsupportedVersion.number();
        return response;
    }
    let wants = |kind| request.resource_types.is_empty() || request.resource_types.contains(&kind);
    let resource = |kind: i8, name: StrBytes| {
        let mut resource = ConfigResource::default();
        (resource.resource_type, resource.resource_name) = (kind, name);
        resource
    };
    let image = node.backend.image();
    let topics = image.names.keys().filter(|_| wants(TOPIC)).map(|name| resource(TOPIC, (&**name).into()));
    let brokers = image.brokers.keys().filter(|_| wants(BROKER));
    let brokers = brokers.map(|id| resource(BROKER, wire_id(id.get()).to_string().into()));
    response.config_resources = topics.chain(brokers).collect();
    response
}
