//! DescribeConfigs: every value of a topic or of this broker, defaults included, with where it came from.

use varve_protocol::{
    ErrorCode,
    messages::{
        DescribeConfigsRequest, DescribeConfigsResponse,
        describe_configs_request::DescribeConfigsResource,
        describe_configs_response::{
            DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
        },
    },
};
use varve_replica::metadata::Topic;

use super::{
    access::{Operation, Resource, authorize},
    topics,
};
use crate::{
    config::{
        Origin, dynamic, keys,
        topic::{Given, Source, TOPIC_KEYS, TopicKey, Type},
        value::{self, Kind},
    },
    net::Context,
    node::Node,
};

const TOPIC: i8 = 2;
const BROKER: i8 = 4;

/// What the client wants to see of each value.
#[derive(Clone, Copy)]
struct Detail {
    synonyms: bool,
    documentation: bool,
}

/// Why a resource is not described.
struct Refused(ErrorCode, &'static str);

impl From<ErrorCode> for Refused {
    fn from(code: ErrorCode) -> Self {
        Self(code, "")
    }
}

pub fn answer(node: &Node, context: &Context, request: DescribeConfigsRequest) -> DescribeConfigsResponse {
    let detail = Detail { synonyms: request.include_synonyms, documentation: request.include_documentation };
    let mut response = DescribeConfigsResponse::default();
    for resource in request.resources {
        let mut result = DescribeConfigsResult::default();
        result.resource_type = resource.resource_type;
        result.resource_name = resource.resource_name.clone();
        match describe(node, context, &resource, detail) {
            Ok(configs) => result.configs = wanted(configs, &resource),
            Err(Refused(code, message)) => {
                result.error_code = code.number();
                result.error_message = Some(message.into()).filter(|_| !message.is_empty());
            }
        }
        response.results.push(result);
    }
    response
}

/// Only the keys that were asked for; none named: all.
fn wanted(
    configs: Vec<DescribeConfigsResourceResult>,
    resource: &DescribeConfigsResource,
) -> Vec<DescribeConfigsResourceResult> {
    match &resource.configuration_keys {
        Some(keys) if !keys.is_empty() => {
            configs.into_iter().filter(|row| keys.contains(&row.name)).collect()
        }
        _ => configs,
    }
}

fn describe(
    node: &Node,
    context: &Context,
    resource: &DescribeConfigsResource,
    detail: Detail,
) -> Result<Vec<DescribeConfigsResourceResult>, Refused> {
    let name = resource.resource_name.as_str();
    match resource.resource_type {
        TOPIC => {
            topics::check_name(name).map_err(|_| ErrorCode::InvalidTopicException)?;
            authorize(context, Operation::DescribeConfigs, Resource::Topic(name))?;
            let image = node.backend.image();
            let topic = image.topic_by_name(name).ok_or(ErrorCode::UnknownTopicOrPartition)?;
            Ok(TOPIC_KEYS.iter().map(|key| topic_row(node, topic, key, detail)).collect())
        }
        BROKER => {
            authorize(context, Operation::DescribeConfigs, Resource::Cluster)?;
            match name {
                "" => Ok(rows_of_all(node, detail)),
                _ if name == node.id.to_string() => Ok(broker_rows(node, detail)),
                _ => Err(Refused(ErrorCode::InvalidRequest, "each broker describes only itself")),
            }
        }
        _ => Err(Refused(ErrorCode::InvalidRequest, "only topics and brokers have configurations here")),
    }
}

fn topic_row(
    node: &Node,
    topic: &Topic,
    key: &'static TopicKey,
    detail: Detail,
) -> DescribeConfigsResourceResult {
    let own = topic.configs.get(key.name).map(|value| Given {
        name: key.name,
        value: value.clone(),
        source: Source::Topic,
    });
    let replicas = topic.partitions.first().map_or(1, |partition| partition.replicas.len());
    let given: Vec<Given> = own.into_iter().chain(node.inherited(key.name, replicas)).collect();
    let mut row = row(given, key.kind, key.doc, detail);
    row.name = key.name.into();
    row
}

fn synonym(name: &str, value: &str, source: i8) -> DescribeConfigsSynonym {
    let mut synonym = DescribeConfigsSynonym::default();
    synonym.name = name.into();
    synonym.value = Some(value.into());
    synonym.source = source;
    synonym
}

/// What was set for all brokers at run time.
fn rows_of_all(node: &Node, detail: Detail) -> Vec<DescribeConfigsResourceResult> {
    let image = node.backend.image();
    let set = image.configs_of_broker(None).iter();
    let rows = set.filter_map(|(name, value)| {
        let key = dynamic::find(name)?;
        let given = Given { name: key.broker?, value: value.clone(), source: Source::AllBrokers };
        Some(row(vec![given], key.kind, key.doc, detail))
    });
    rows.collect()
}

/// The broker's keys, and beside them the topic defaults that have no broker key of their own: tools ask a broker for those, too.
/// What is in [`dynamic`] is changed at run time, the rest by a restart.
fn broker_rows(node: &Node, detail: Detail) -> Vec<DescribeConfigsResourceResult> {
    let replicas = usize::try_from(node.replication_factor()).unwrap_or(1);
    let own = node.layers.iter().map(|(key, layered)| {
        if let Some(changeable) = dynamic::find(key.name) {
            return row(node.inherited(changeable.name, replicas), changeable.kind, key.doc, detail);
        }
        let source = if layered.origin == Origin::Default { Source::Default } else { Source::StaticBroker };
        let value = match key.name {
            // Tools create topics with what they read here: never more than there can be.
            "default.replication.factor" => node.replication_factor().to_string(),
            _ => shown(key.kind, &layered.text),
        };
        let given = vec![Given { name: key.name, value, source }];
        let mut row = row(given, broker_type(key.kind), key.doc, detail);
        row.read_only = true;
        if key.kind == Kind::Secret {
            (row.is_sensitive, row.value) = (true, None);
            row.synonyms.clear();
        }
        row
    });
    let others = TOPIC_KEYS.iter().filter(|key| key.broker.is_none() && keys::find(key.name).is_none());
    let others = others.map(|key| {
        let mut row = row(node.inherited(key.name, replicas), key.kind, key.doc, detail);
        row.read_only = true;
        row
    });
    own.chain(others).chain(kafkas(node, detail)).collect()
}

/// What consoles look for under names that are no keys here.
fn kafkas(node: &Node, detail: Detail) -> impl Iterator<Item = DescribeConfigsResourceResult> {
    const LIKE: &str = "4.2";
    let rows = [
        ("broker.id", node.id.to_string(), Type::Int, "The number of this node: node.id."),
        ("log.dirs", node.backend.directory().path, Type::String, "Where its data is: data.dir."),
        ("delete.topic.enable", "true".to_owned(), Type::Boolean, "Topics can be deleted."),
        (
            "inter.broker.protocol.version",
            LIKE.to_owned(),
            Type::String,
            "Whose APIs are served, for who shows a version: nodes speak a protocol of their own.",
        ),
    ];
    rows.into_iter().map(move |(name, value, kind, doc)| {
        let mut row = row(vec![Given { name, value, source: Source::Default }], kind, doc, detail);
        row.read_only = true;
        row
    })
}

/// A value with the places that give it, the winner first.
fn row(given: Vec<Given>, kind: Type, doc: &'static str, detail: Detail) -> DescribeConfigsResourceResult {
    let mut row = DescribeConfigsResourceResult::default();
    row.name = given[0].name.into();
    row.value = Some(given[0].value.as_str().into());
    row.config_source = given[0].source as i8;
    row.config_type = kind as i8;
    if detail.synonyms {
        row.synonyms =
            given.iter().map(|given| synonym(given.name, &given.value, given.source as i8)).collect();
    }
    row.documentation = detail.documentation.then(|| doc.into());
    row
}

/// Sizes and spans as the plain numbers that Kafka's tools parse.
fn shown(kind: Kind, text: &str) -> String {
    let number = match kind {
        Kind::Bytes { .. } => value::bytes(text),
        Kind::Millis { .. } => value::millis(text),
        _ => None,
    };
    number.map_or_else(|| text.to_owned(), |number| number.to_string())
}

const fn broker_type(kind: Kind) -> Type {
    match kind {
        Kind::Integer { .. } => Type::Int,
        Kind::Bytes { .. } | Kind::Millis { .. } => Type::Long,
        Kind::Switch => Type::Boolean,
        Kind::Text
        | Kind::Share
        | Kind::ShareOrNone
        | Kind::MemoryShare
        | Kind::SwitchOrAuto
        | Kind::Choice(_)
        | Kind::Secret => Type::String,
    }
}
