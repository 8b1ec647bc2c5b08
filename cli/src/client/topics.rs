//! Creating, deleting and describing topics.

use std::collections::BTreeMap;

use varve_protocol::{
    Request, Response,
    messages::{
        CreatePartitionsRequest, CreateTopicsRequest, DeleteRecordsRequest, DeleteTopicsRequest,
        DescribeConfigsRequest, IncrementalAlterConfigsRequest, Uuid, create_partitions_request,
        create_topics_request, delete_records_request, describe_configs_request,
        incremental_alter_configs_request,
    },
};

use super::{Client, ClientError, Missing, Topic, error};
use crate::limits;

/// A topic among the kinds of resources that have configurations.
const TOPIC: i8 = 2;

/// A topic to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTopic {
    pub name: String,
    /// -1: as the broker is configured.
    pub partitions: i32,
    /// -1: as the broker is configured.
    pub replication_factor: i16,
    pub configs: Vec<(String, String)>,
}

/// Whether something happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Run {
    /// It does.
    Real,
    /// The broker only says whether it would.
    Dry,
}

/// What happens to a configuration of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigChange {
    /// It gets this value.
    Set(String, String),
    /// The topic inherits it again.
    Delete(String),
    /// These words are added to a list.
    Append(String, String),
    /// These words are taken from a list.
    Subtract(String, String),
}

/// What became of one topic.
pub type Outcome<T> = (String, Result<T, ClientError>);

/// A topic that was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Created {
    /// Absent below CreateTopics 7.
    pub id: Option<Uuid>,
    /// -1 below CreateTopics 5.
    pub partitions: i32,
    /// -1 below CreateTopics 5.
    pub replication_factor: i16,
}

/// The first offset of a partition from now on, where records were deleted.
pub type Trimmed = (i32, Result<i64, ClientError>);

/// A configuration of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicConfig {
    pub name: String,
    pub value: Option<String>,
    pub source: &'static str,
}

impl Client {
    /// Makes topics, or only says whether it would.
    pub fn create_topics(
        &mut self,
        topics: &[NewTopic],
        run: Run,
    ) -> Result<Vec<Outcome<Created>>, ClientError> {
        let mut request = CreateTopicsRequest::default();
        request.timeout_ms = limits::BROKER_TIMEOUT_MS;
        request.validate_only = run == Run::Dry;
        request.topics = topics.iter().map(creatable).collect();
        let Response::CreateTopics(response) = self.ask_controller(&Request::CreateTopics(request))? else {
            unreachable!("a response is of its request's key");
        };
        let outcome = |result: varve_protocol::messages::create_topics_response::CreatableTopicResult| {
            let name = result.name.to_string();
            let created = Created {
                id: Some(result.topic_id).filter(|id| !id.is_zero()),
                partitions: result.num_partitions,
                replication_factor: result.replication_factor,
            };
            let message = result.error_message.as_deref().filter(|text| !text.is_empty());
            let checked = error::check(&format!("topic {name}"), result.error_code, message);
            (name, checked.map(|()| created))
        };
        Ok(response.topics.into_iter().map(outcome).collect())
    }

    /// Deletes topics by name.
    pub fn delete_topics(&mut self, names: &[String]) -> Result<Vec<Outcome<()>>, ClientError> {
        let mut request = DeleteTopicsRequest::default();
        request.timeout_ms = limits::BROKER_TIMEOUT_MS;
        request.topic_names = names.iter().map(|name| name.as_str().into()).collect();
        let Response::DeleteTopics(response) = self.ask_controller(&Request::DeleteTopics(request))? else {
            unreachable!("a response is of its request's key");
        };
        let outcome = |result: varve_protocol::messages::delete_topics_response::DeletableTopicResult| {
            let name = result.name.map(|name| name.to_string()).unwrap_or_default();
            let message = result.error_message.as_deref().filter(|text| !text.is_empty());
            let checked = error::check(&format!("topic {name}"), result.error_code, message);
            (name, checked)
        };
        Ok(response.responses.into_iter().map(outcome).collect())
    }

    /// Lets topics have so many partitions, or only says whether they could.
    pub fn create_partitions(
        &mut self,
        wanted: &[(String, i32)],
        run: Run,
    ) -> Result<Vec<Outcome<()>>, ClientError> {
        let extended = |(name, count): &(String, i32)| {
            let mut topic = create_partitions_request::CreatePartitionsTopic::default();
            (topic.name, topic.count, topic.assignments) = (name.as_str().into(), *count, None);
            topic
        };
        let mut request = CreatePartitionsRequest::default();
        request.topics = wanted.iter().map(extended).collect();
        request.timeout_ms = limits::BROKER_TIMEOUT_MS;
        request.validate_only = run == Run::Dry;
        let request = Request::CreatePartitions(request);
        let Response::CreatePartitions(response) = self.ask_controller(&request)? else {
            unreachable!("a response is of its request's key");
        };
        let outcomes = response.results.into_iter().map(|result| {
            let name = result.name.to_string();
            let message = result.error_message.as_deref().filter(|text| !text.is_empty());
            let checked = error::check(&format!("topic {name}"), result.error_code, message);
            (name, checked)
        });
        Ok(outcomes.collect())
    }

    /// Deletes the records of partitions below these offsets; the first offsets from then on.
    pub fn delete_records(
        &mut self,
        topic: &Topic,
        before: &BTreeMap<i32, i64>,
    ) -> Result<Vec<Trimmed>, ClientError> {
        let chosen: Vec<i32> = before.keys().copied().collect();
        let mut outcomes = Vec::new();
        for (leader, partitions) in topic.by_leader(&chosen)? {
            let partition = |index: &i32| {
                let mut partition = delete_records_request::DeleteRecordsPartition::default();
                (partition.partition_index, partition.offset) = (*index, before[index]);
                partition
            };
            let mut named = delete_records_request::DeleteRecordsTopic::default();
            named.name = topic.name.as_str().into();
            named.partitions = partitions.iter().map(partition).collect();
            let mut request = DeleteRecordsRequest::default();
            (request.topics, request.timeout_ms) = (vec![named], limits::BROKER_TIMEOUT_MS);
            let Response::DeleteRecords(response) =
                self.ask_node(leader, &Request::DeleteRecords(request))?
            else {
                unreachable!("a response is of its request's key");
            };
            outcomes.extend(response.topics.into_iter().flat_map(|told| told.partitions).map(|told| {
                let subject = format!("{}/{}", topic.name, told.partition_index);
                let checked = error::check(&subject, told.error_code, None);
                (told.partition_index, checked.map(|()| told.low_watermark))
            }));
        }
        outcomes.sort_by_key(|(partition, _)| *partition);
        Ok(outcomes)
    }

    /// Changes the configuration of each topic, or only says whether it could be.
    pub fn alter_topic_configs(
        &mut self,
        topics: &[String],
        changes: &[ConfigChange],
        run: Run,
    ) -> Result<Vec<Outcome<()>>, ClientError> {
        let mut request = IncrementalAlterConfigsRequest::default();
        request.validate_only = run == Run::Dry;
        request.resources = topics.iter().map(|name| altered(name, changes)).collect();
        let request = Request::IncrementalAlterConfigs(request);
        let Response::IncrementalAlterConfigs(response) = self.ask_controller(&request)? else {
            unreachable!("a response is of its request's key");
        };
        let outcomes = response.responses.into_iter().map(|result| {
            let name = result.resource_name.to_string();
            let message = result.error_message.as_deref().filter(|text| !text.is_empty());
            let checked = error::check(&format!("topic {name}"), result.error_code, message);
            (name, checked)
        });
        Ok(outcomes.collect())
    }

    /// Every configuration of a topic, by name.
    pub fn topic_configs(&mut self, topic: &str) -> Result<Vec<TopicConfig>, ClientError> {
        let mut resource = describe_configs_request::DescribeConfigsResource::default();
        resource.resource_type = TOPIC;
        resource.resource_name = topic.into();
        resource.configuration_keys = None;
        let mut request = DescribeConfigsRequest::default();
        request.resources = vec![resource];
        let Response::DescribeConfigs(response) = self.ask(&Request::DescribeConfigs(request))? else {
            unreachable!("a response is of its request's key");
        };
        let mut configs = Vec::new();
        for result in response.results {
            let message = result.error_message.as_deref();
            error::check(&format!("configuration of {topic}"), result.error_code, message)?;
            configs.extend(result.configs.into_iter().map(|config| TopicConfig {
                name: config.name.to_string(),
                value: config.value.map(|value| value.to_string()),
                source: source_name(config.config_source),
            }));
        }
        configs.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(configs)
    }

    /// Old clusters change topics on one broker only; on others any broker hands the request on.
    fn ask_controller(&mut self, request: &Request) -> Result<Response, ClientError> {
        let controller = self.metadata(Some(&[]), Missing::Report)?.controller;
        if self.brokers.contains_key(&controller) {
            self.ask_node(controller, request)
        } else {
            self.ask(request)
        }
    }
}

fn creatable(topic: &NewTopic) -> create_topics_request::CreatableTopic {
    let config = |(name, value): &(String, String)| {
        let mut config = create_topics_request::CreatableTopicConfig::default();
        config.name = name.as_str().into();
        config.value = Some(value.as_str().into());
        config
    };
    let mut creatable = create_topics_request::CreatableTopic::default();
    creatable.name = topic.name.as_str().into();
    creatable.num_partitions = topic.partitions;
    creatable.replication_factor = topic.replication_factor;
    creatable.configs = topic.configs.iter().map(config).collect();
    creatable
}

fn altered(topic: &str, changes: &[ConfigChange]) -> incremental_alter_configs_request::AlterConfigsResource {
    let config = |change: &ConfigChange| {
        let (operation, name, value) = match change {
            ConfigChange::Set(name, value) => (0, name, Some(value)),
            ConfigChange::Delete(name) => (1, name, None),
            ConfigChange::Append(name, value) => (2, name, Some(value)),
            ConfigChange::Subtract(name, value) => (3, name, Some(value)),
        };
        let mut config = incremental_alter_configs_request::AlterableConfig::default();
        config.name = name.as_str().into();
        config.config_operation = operation;
        config.value = value.map(|value| value.as_str().into());
        config
    };
    let mut resource = incremental_alter_configs_request::AlterConfigsResource::default();
    resource.resource_type = TOPIC;
    resource.resource_name = topic.into();
    resource.configs = changes.iter().map(config).collect();
    resource
}

/// Kafka's names of where a value comes from.
fn source_name(source: i8) -> &'static str {
    match source {
        1 => "DYNAMIC_TOPIC_CONFIG",
        2 => "DYNAMIC_BROKER_CONFIG",
        3 => "DYNAMIC_DEFAULT_BROKER_CONFIG",
        4 => "STATIC_BROKER_CONFIG",
        5 => "DEFAULT_CONFIG",
        _ => "UNKNOWN",
    }
}
