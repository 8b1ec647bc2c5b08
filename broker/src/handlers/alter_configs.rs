//! AlterConfigs and IncrementalAlterConfigs: what a topic, a broker or all brokers say of their own, all of it or single values.
//! Both are checked against the whole that would come of it, journaled in the metadata group, and in force once answered.

use std::collections::BTreeMap;

use varve_common::{NodeId, TopicId};
use varve_protocol::{
    ErrorCode,
    messages::{
        AlterConfigsRequest, AlterConfigsResponse, IncrementalAlterConfigsRequest,
        IncrementalAlterConfigsResponse, StrBytes, alter_configs_request, alter_configs_response,
        incremental_alter_configs_request, incremental_alter_configs_response,
    },
};
use varve_replica::metadata::MetadataRejected;

use super::{
    access::{Operation, Resource, authorize},
    errors::Coded as _,
    topics,
};
use crate::{
    config::{
        alter::{self, Change, Delta, Own, Whose},
        topic::{Defaults, TopicConfigError},
    },
    net::Context,
    node::{MetadataRefusal, Node},
};

const TOPIC: i8 = 2;
const BROKER: i8 = 4;

/// How often a change is tried that others come before: each time one of theirs was made.
const TRIES_MAX: usize = 16;

/// How IncrementalAlterConfigs numbers what is done to a value.
const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

/// What Kafka's tool for reassignments takes away at the end, whether it was set or not. There are none here: taking them away
/// is done before it is begun.
const THROTTLES: [&str; 5] = [
    "leader.replication.throttled.rate",
    "follower.replication.throttled.rate",
    "replica.alter.log.dirs.io.max.bytes.per.second",
    "leader.replication.throttled.replicas",
    "follower.replication.throttled.replicas",
];

/// Why nothing of a resource was changed.
struct Refused(ErrorCode, String);

impl From<ErrorCode> for Refused {
    fn from(code: ErrorCode) -> Self {
        Self(code, String::new())
    }
}

impl From<TopicConfigError> for Refused {
    fn from(error: TopicConfigError) -> Self {
        Self(error.code(), error.to_string())
    }
}

impl From<MetadataRefusal> for Refused {
    fn from(refusal: MetadataRefusal) -> Self {
        Self(refusal.code(), refusal.to_string())
    }
}

/// The error of a resource: its code, and what is wrong; nothing, as an empty text, where it was changed.
fn told(done: Result<(), Refused>) -> (i16, Option<StrBytes>) {
    let Refused(code, message) = done.err().unwrap_or(Refused(ErrorCode::None, String::new()));
    (code.number(), Some(message.into()))
}

fn invalid(what: &str) -> Refused {
    Refused(ErrorCode::InvalidRequest, what.to_owned())
}

/// How often each resource stands in a request: more than once is an error of each.
fn count<'a>(resources: impl Iterator<Item = (i8, &'a str)>) -> BTreeMap<(i8, &'a str), u32> {
    let mut times = BTreeMap::new();
    for resource in resources {
        *times.entry(resource).or_default() += 1;
    }
    times
}

pub async fn replace(node: &Node, context: &Context, request: AlterConfigsRequest) -> AlterConfigsResponse {
    let resources = &request.resources;
    let times = count(resources.iter().map(|one| (one.resource_type, one.resource_name.as_str())));
    let mut response = AlterConfigsResponse::default();
    for resource in resources {
        let subject = Subject::new(node, context, resource.resource_type, resource.resource_name.as_str());
        let plan = |whose, defaults: &Defaults, own: &Own| {
            check_once(resource.configs.iter().map(|one| one.name.as_str()))?;
            let all = |one: &alter_configs_request::AlterableConfig| {
                one.value.as_ref().map(|value| value.to_string())
            };
            let values: Vec<_> = resource.configs.iter().map(|one| (one.name.as_str(), all(one))).collect();
            let asked = values.iter().map(|(name, value)| (*name, value.as_deref()));
            Ok(alter::replace(whose, defaults, own, asked)?)
        };
        let done = subject.apply(&times, request.validate_only, plan).await;
        let mut result = alter_configs_response::AlterConfigsResourceResponse::default();
        result.resource_type = resource.resource_type;
        result.resource_name = resource.resource_name.clone();
        (result.error_code, result.error_message) = told(done);
        response.responses.push(result);
    }
    response
}

pub async fn change(
    node: &Node,
    context: &Context,
    request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let resources = &request.resources;
    let times = count(resources.iter().map(|one| (one.resource_type, one.resource_name.as_str())));
    let mut response = IncrementalAlterConfigsResponse::default();
    for resource in resources {
        let mut subject =
            Subject::new(node, context, resource.resource_type, resource.resource_name.as_str());
        subject.is_done = !resource.configs.is_empty() && resource.configs.iter().all(takes_a_throttle);
        let plan = |whose, defaults: &Defaults, own: &Own| {
            check_once(resource.configs.iter().map(|one| one.name.as_str()))?;
            let changes: Vec<_> = resource.configs.iter().map(change_of).collect::<Result<_, _>>()?;
            Ok(alter::alter(whose, defaults, own, changes)?)
        };
        let done = subject.apply(&times, request.validate_only, plan).await;
        let mut result = incremental_alter_configs_response::AlterConfigsResourceResponse::default();
        result.resource_type = resource.resource_type;
        result.resource_name = resource.resource_name.clone();
        (result.error_code, result.error_message) = told(done);
        response.responses.push(result);
    }
    response
}

fn takes_a_throttle(config: &incremental_alter_configs_request::AlterableConfig) -> bool {
    config.config_operation == DELETE && THROTTLES.contains(&config.name.as_str())
}

fn change_of(
    config: &incremental_alter_configs_request::AlterableConfig,
) -> Result<(&str, Change<'_>), Refused> {
    let name = config.name.as_str();
    let value = || {
        let value = config.value.as_ref().map(|value| value.as_str());
        value.ok_or_else(|| TopicConfigError::Null(name.to_owned()))
    };
    let change = match config.config_operation {
        SET => Change::Set(value()?),
        DELETE => Change::Delete,
        APPEND => Change::Append(value()?),
        SUBTRACT => Change::Subtract(value()?),
        _ => return Err(invalid("unknown operation")),
    };
    Ok((name, change))
}

fn check_once<'a>(names: impl Iterator<Item = &'a str>) -> Result<(), Refused> {
    let mut names: Vec<&str> = names.collect();
    names.sort_unstable();
    let twice = names.windows(2).any(|pair| pair[0] == pair[1]);
    if twice { Err(invalid("a configuration is named more than once")) } else { Ok(()) }
}

/// What is to be changed.
struct Subject<'a> {
    node: &'a Node,
    context: &'a Context,
    kind: i8,
    name: &'a str,
    /// Whether nothing is left to change.
    is_done: bool,
}

impl<'a> Subject<'a> {
    const fn new(node: &'a Node, context: &'a Context, kind: i8, name: &'a str) -> Self {
        Self { node, context, kind, name, is_done: false }
    }

    async fn apply(
        &self,
        times: &BTreeMap<(i8, &str), u32>,
        validate_only: bool,
        plan: impl Fn(Whose, &Defaults, &Own) -> Result<Delta, Refused>,
    ) -> Result<(), Refused> {
        if times.get(&(self.kind, self.name)).is_some_and(|times| *times > 1) {
            return Err(invalid("the resource is named more than once in the request"));
        }
        let target = self.target()?;
        if self.is_done {
            return Ok(());
        }
        // All changes of this node pass here, and once answered a change is in the image. Another node may come in between: what is
        // journaled names what it builds on.
        let _alone = self.node.alteration.lock().await;
        for _ in 0..TRIES_MAX {
            let own = self.own(&target)?;
            let whose = if matches!(target, Target::Topic(_)) { Whose::Topic } else { Whose::Broker };
            let delta = plan(whose, &self.node.defaults(), &own)?;
            if validate_only || delta.is_empty() {
                return Ok(());
            }
            tracing::info!(resource = self.name, changes = ?delta, "a configuration changes");
            let done = match target {
                Target::Topic(id) => self.node.backend.configure_topic(id, delta, &own).await,
                Target::Broker(whose) => self.node.backend.configure_broker(whose, delta, &own).await,
            };
            if done != Err(MetadataRejected::ConfigsChanged.into()) {
                return Ok(done?);
            }
        }
        Err(MetadataRefusal::from(MetadataRejected::ConfigsChanged).into())
    }

    /// What the name stands for, where the client may change it.
    fn target(&self) -> Result<Target, Refused> {
        match self.kind {
            TOPIC => {
                topics::check_name(self.name).map_err(|_| ErrorCode::InvalidTopicException)?;
                authorize(self.context, Operation::AlterConfigs, Resource::Topic(self.name))?;
                let image = self.node.backend.image();
                let topic = image.topic_by_name(self.name).ok_or(ErrorCode::UnknownTopicOrPartition)?;
                Ok(Target::Topic(topic.id))
            }
            BROKER => {
                authorize(self.context, Operation::AlterConfigs, Resource::Cluster)?;
                if self.name.is_empty() {
                    return Ok(Target::Broker(None));
                }
                let image = self.node.backend.image();
                let node = self.name.parse().ok().and_then(NodeId::new);
                let node = node.filter(|id| *id == self.node.id || image.brokers.contains_key(id));
                node.map(|id| Target::Broker(Some(id))).ok_or_else(|| invalid("no broker has this id"))
            }
            _ => Err(invalid("only topics and brokers have configurations here")),
        }
    }

    /// What is set of its own now.
    fn own(&self, target: &Target) -> Result<Own, ErrorCode> {
        let image = self.node.backend.image();
        match target {
            Target::Topic(id) => {
                image.topic(*id).map(|topic| topic.configs.clone()).ok_or(ErrorCode::UnknownTopicOrPartition)
            }
            Target::Broker(whose) => Ok(image.configs_of_broker(*whose).clone()),
        }
    }
}

/// Whose configuration is changed.
enum Target {
    Topic(TopicId),
    /// `None`: all of them.
    Broker(Option<NodeId>),
}
