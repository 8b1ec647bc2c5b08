//! DescribeCluster.

use varve_protocol::{
    ErrorCode,
    messages::{
        DescribeClusterRequest, DescribeClusterResponse, StrBytes,
        describe_cluster_response::DescribeClusterBroker,
    },
};

use super::{
    access::{self, Operation, Resource, authorize},
    brokers,
};
use crate::{net::Context, node::Node};

/// From this version on a client may ask for controllers instead of brokers.
const ENDPOINT_TYPE_FROM: i16 = 1;
const BROKERS: i8 = 1;
const CONTROLLERS: i8 = 2;

pub fn answer(
    node: &Node,
    context: &Context,
    version: i16,
    request: &DescribeClusterRequest,
) -> DescribeClusterResponse {
    let mut response = DescribeClusterResponse::default();
    if let Err(code) = authorize(context, Operation::Describe, Resource::Cluster) {
        response.error_code = code.number();
        return response;
    }
    if version >= ENDPOINT_TYPE_FROM && request.endpoint_type != BROKERS {
        let controllers = request.endpoint_type == CONTROLLERS;
        let code =
            if controllers { ErrorCode::MismatchedEndpointType } else { ErrorCode::UnsupportedEndpointType };
        response.error_code = code.number();
        response.error_message = Some("only brokers can be described here".into());
        return response;
    }
    response.cluster_id = node.backend.image().cluster.to_string().into();
    let mut endpoints = brokers::registered(node, context);
    endpoints.retain(|endpoint| endpoint.is_alive || request.include_fenced_brokers);
    response.controller_id = brokers::controller(node, &endpoints);
    if request.include_cluster_authorized_operations {
        response.cluster_authorized_operations = access::cluster_operations(context);
    }
    response.brokers = endpoints.into_iter().map(broker).collect();
    response
}

fn broker(endpoint: brokers::Endpoint) -> DescribeClusterBroker {
    let mut broker = DescribeClusterBroker::default();
    broker.broker_id = endpoint.id;
    broker.host = endpoint.host.into();
    broker.port = endpoint.port;
    broker.rack = endpoint.rack.map(StrBytes::from);
    broker.is_fenced = !endpoint.is_alive;
    broker
}
