//! What names, makes and describes topics and the cluster.

use varve_protocol::{METADATA_TOPIC, TABLE};

use super::*;

fn wanted(name: Option<&str>, id: Uuid) -> metadata_request::MetadataRequestTopic {
    message!(metadata_request::MetadataRequestTopic { name: name.map(Into::into), topic_id: id })
}

async fn topics(
    peer: &mut impl Peer,
    version: i16,
    creates: bool,
    topics: Option<Vec<metadata_request::MetadataRequestTopic>>,
) -> Vec<metadata_response::MetadataResponseTopic> {
    let mut request = message!(MetadataRequest { topics: topics, allow_auto_topic_creation: creates });
    if version >= 8 {
        request.include_topic_authorized_operations = true;
        request.include_cluster_authorized_operations = version <= 10;
    }
    let response = ask!(peer, version, Metadata, request);
    assert_eq!((response.brokers.len(), response.error_code), (1, OK));
    if version >= 1 {
        assert_eq!(response.controller_id, 1);
    }
    if (8..=10).contains(&version) {
        assert_eq!(response.cluster_authorized_operations, 0b1_1111_1010_0000);
    }
    response.topics
}

pub async fn metadata(peer: &mut impl Peer, version: i16) {
    let name = format!("metadata-{version}");
    let named = |name: &str| wanted(Some(name), Uuid::ZERO);
    if version >= 4 {
        let unknown = topics(peer, version, false, Some(vec![named(&name)])).await;
        assert_eq!(unknown[0].error_code, code(ErrorCode::UnknownTopicOrPartition));
    }
    // Asking creates; a topic that stands twice is answered once.
    let made = topics(peer, version, true, Some(vec![named(&name), named(&name), named("a/b")])).await;
    assert_eq!(made.len(), 2);
    assert_eq!((made[0].error_code, made[0].partitions.len()), (OK, 1), "{made:?}");
    assert_eq!((made[0].partitions[0].leader_id, &made[0].partitions[0].isr_nodes[..]), (1, &[1][..]));
    assert_eq!(made[1].error_code, code(ErrorCode::InvalidTopicException));
    if version >= 8 {
        assert_eq!(made[0].topic_authorized_operations, 0b1101_1111_1000);
    }
    let everything = topics(peer, version, false_from(version), all(version)).await;
    assert!(everything.iter().any(|topic| topic.name.as_ref().is_some_and(|known| known.as_str() == name)));
    if version >= 1 {
        assert_eq!(topics(peer, version, true, Some(Vec::new())).await, Vec::new());
    }
    by_id(peer, version, &made[0]).await;
}

/// Versions before 4 cannot say that nothing is to be created.
const fn false_from(version: i16) -> bool {
    version < 4
}

const fn all(version: i16) -> Option<Vec<metadata_request::MetadataRequestTopic>> {
    if version == 0 { Some(Vec::new()) } else { None }
}

async fn by_id(peer: &mut impl Peer, version: i16, made: &metadata_response::MetadataResponseTopic) {
    if version < 10 {
        return;
    }
    let asked = vec![wanted(None, made.topic_id), wanted(None, Uuid::from_bytes([9; 16]))];
    let answer = topics(peer, version, true, Some(asked)).await;
    let codes: Vec<i16> = answer.iter().map(|topic| topic.error_code).collect();
    if version < 12 {
        assert_eq!(codes, [code(ErrorCode::InvalidRequest); 2], "version {version}");
        return;
    }
    assert_eq!(codes, [OK, code(ErrorCode::UnknownTopicId)]);
    assert_eq!(answer[0].name, made.name);
}

pub async fn create_topics(peer: &mut impl Peer, version: i16) {
    let name = |kind: &str| format!("create-{version}-{kind}");
    let topic = |kind: &str, partitions: i32, replicas: i16| {
        message!(create_topics_request::CreatableTopic {
            name: name(kind).into(),
            num_partitions: partitions,
            replication_factor: replicas,
        })
    };
    let with = |kind: &str, key: &str, value: &str| {
        let mut topic = topic(kind, 1, 1);
        topic.configs = vec![message!(create_topics_request::CreatableTopicConfig {
            name: key.into(),
            value: Some(value.into()),
        })];
        topic
    };
    let assigned = |kind: &str, partitions: i32, brokers: Vec<i32>| {
        let mut topic = topic(kind, partitions, -1);
        topic.assignments = vec![message!(create_topics_request::CreatableReplicaAssignment {
            partition_index: 0,
            broker_ids: brokers,
        })];
        topic
    };
    let mut slash = topic("", 1, 1);
    slash.name = "a/b".into();
    let asked = vec![
        (with("good", "retention.ms", "1000"), OK),
        (topic("defaults", -1, -1), OK),
        (assigned("assigned", -1, vec![1]), OK),
        (topic("twice", 1, 1), code(ErrorCode::InvalidRequest)),
        (slash, code(ErrorCode::InvalidTopicException)),
        (topic("none", 0, 1), code(ErrorCode::InvalidPartitions)),
        (topic("five", 1, 5), code(ErrorCode::InvalidReplicationFactor)),
        (with("key", "no.such.key", "1"), code(ErrorCode::InvalidConfig)),
        (with("value", "retention.ms", "soon"), code(ErrorCode::InvalidConfig)),
        (assigned("elsewhere", -1, vec![2]), code(ErrorCode::InvalidReplicaAssignment)),
        (assigned("both", 1, vec![1]), code(ErrorCode::InvalidRequest)),
    ];
    let expected: Vec<i16> = asked.iter().map(|(_, code)| *code).collect();
    let mut topics: Vec<_> = asked.into_iter().map(|(topic, _)| topic).collect();
    topics.push(topic("twice", 1, 1));
    for validate_only in [true, false] {
        let request = message!(CreateTopicsRequest {
            topics: topics.clone(),
            validate_only: validate_only,
            timeout_ms: 10_000
        });
        let response = ask!(peer, version, CreateTopics, request);
        let codes: Vec<i16> = response.topics.iter().map(|topic| topic.error_code).collect();
        assert_eq!(codes, expected, "version {version}: {response:?}");
        created(&response.topics[0], version, validate_only);
    }
    let again = message!(CreateTopicsRequest { topics: vec![topic("good", 1, 1)] });
    let response = ask!(peer, version, CreateTopics, again);
    assert_eq!(response.topics[0].error_code, code(ErrorCode::TopicAlreadyExists));
    let none = ask!(peer, version, CreateTopics, CreateTopicsRequest::default());
    assert_eq!(none.topics, Vec::new());
}

fn created(topic: &create_topics_response::CreatableTopicResult, version: i16, validate_only: bool) {
    if version >= 5 {
        assert_eq!((topic.num_partitions, topic.replication_factor), (1, 1));
        let configs = topic.configs.as_ref().unwrap();
        let own = configs.iter().find(|config| config.name.as_str() == "retention.ms").unwrap();
        assert_eq!((own.value.as_ref().unwrap().as_str(), own.config_source), ("1000", 1));
        assert!(configs.iter().any(|config| config.config_source == 5));
    }
    if version >= 7 {
        assert_eq!(topic.topic_id.is_zero(), validate_only);
    }
}

pub async fn delete_topics(peer: &mut impl Peer, version: i16) {
    let name = format!("delete-{version}");
    let first = create(peer, &name).await;
    let names = ["no-such", name.as_str(), "twice", "twice"];
    let named = |name: &str| message!(delete_topics_request::DeleteTopicState { name: Some(name.into()) });
    let by_names = |names: &[&str]| {
        if version >= 6 {
            message!(DeleteTopicsRequest { topics: names.iter().map(|name| named(name)).collect() })
        } else {
            message!(DeleteTopicsRequest { topic_names: names.iter().map(|name| (*name).into()).collect() })
        }
    };
    let response = ask!(peer, version, DeleteTopics, by_names(&names));
    let codes: Vec<i16> = response.responses.iter().map(|topic| topic.error_code).collect();
    assert_eq!(codes, [code(ErrorCode::UnknownTopicOrPartition), OK, code(ErrorCode::InvalidRequest)]);
    let second = create(peer, &name).await;
    assert!(first != second && !first.is_zero(), "a name that comes again is another topic");
    if version < 6 {
        return;
    }
    let id = |id: Uuid| message!(delete_topics_request::DeleteTopicState { name: None, topic_id: id });
    let mut both = id(second);
    both.name = Some(name.as_str().into());
    let request = message!(DeleteTopicsRequest { topics: vec![id(first), both, id(second), id(Uuid::ZERO)] });
    let response = ask!(peer, version, DeleteTopics, request);
    let codes: Vec<i16> = response.responses.iter().map(|topic| topic.error_code).collect();
    let invalid = code(ErrorCode::InvalidRequest);
    assert_eq!(codes, [code(ErrorCode::UnknownTopicId), invalid, OK, invalid]);
    assert_eq!(response.responses[2].name.as_ref().unwrap().as_str(), name);
}

pub async fn create_partitions(peer: &mut impl Peer, version: i16) {
    let names = ["more", "same", "less", "none", "hand", "hands", "uneven", "elsewhere", "gap"];
    let name = |kind: &str| format!("partitions-{version}-{kind}");
    for kind in names {
        create(peer, &name(kind)).await;
    }
    let asked = |kind: &str, count: i32, assignments: Option<&[&[i32]]>| {
        let assignment = |brokers: &&[i32]| {
            message!(create_partitions_request::CreatePartitionsAssignment { broker_ids: brokers.to_vec() })
        };
        message!(create_partitions_request::CreatePartitionsTopic {
            name: name(kind).into(),
            count: count,
            assignments: assignments.map(|given| given.iter().map(assignment).collect()),
        })
    };
    let (invalid, assignment) =
        (code(ErrorCode::InvalidPartitions), code(ErrorCode::InvalidReplicaAssignment));
    // Groups would not be found again, whether there are any yet or not.
    let offsets = message!(create_partitions_request::CreatePartitionsTopic {
        name: "__consumer_offsets".into(),
        count: 60,
    });
    let topics = vec![
        (offsets, invalid),
        (asked("more", 3, None), OK),
        (asked("same", 1, None), invalid),
        (asked("less", 0, None), invalid),
        (asked("hand", 2, Some(&[&[1]])), OK),
        (asked("hands", 2, Some(&[&[1], &[1]])), assignment),
        (asked("uneven", 2, Some(&[&[1, 1]])), assignment),
        (asked("elsewhere", 2, Some(&[&[9]])), assignment),
        (asked("unknown", 2, None), code(ErrorCode::UnknownTopicOrPartition)),
        (asked("gap", 200_000, None), invalid),
        (asked("twice", 2, None), code(ErrorCode::InvalidRequest)),
    ];
    let mut expected: Vec<(String, i16)> =
        topics.iter().map(|(topic, code)| (topic.name.to_string(), *code)).collect();
    expected.sort();
    let mut topics: Vec<_> = topics.into_iter().map(|(topic, _)| topic).collect();
    topics.push(asked("twice", 2, None));
    for validate_only in [true, false] {
        let request = message!(CreatePartitionsRequest {
            topics: topics.clone(),
            validate_only: validate_only,
            timeout_ms: 10_000
        });
        let response = ask!(peer, version, CreatePartitions, request);
        let mut told: Vec<(String, i16)> =
            response.results.iter().map(|result| (result.name.to_string(), result.error_code)).collect();
        told.sort();
        assert_eq!(told, expected, "version {version}: {response:?}");
    }
    let request = message!(MetadataRequest { topics: Some(vec![wanted(Some(&name("more")), Uuid::ZERO)]) });
    let grown = &ask!(peer, 9, Metadata, request).topics[0];
    assert!(grown.partitions.len() == 3 && grown.partitions.iter().all(|at| at.leader_id == 1), "{grown:?}");
}

pub async fn elect_leaders(peer: &mut impl Peer, version: i16) {
    let name = format!("elect-{version}");
    create(peer, &name).await;
    let asked = |topic: &str, partitions: Vec<i32>| {
        message!(elect_leaders_request::TopicPartitions { topic: topic.into(), partitions: partitions })
    };
    let request = message!(ElectLeadersRequest {
        topic_partitions: Some(vec![asked(&name, vec![0, 1]), asked("no-such", vec![0])]),
        timeout_ms: 1_000,
    });
    let response = ask!(peer, version, ElectLeaders, request.clone());
    let told: Vec<(&str, Vec<i16>)> = response
        .replica_election_results
        .iter()
        .map(|topic| {
            let codes = topic.partition_result.iter().map(|partition| partition.error_code).collect();
            (topic.topic.as_str(), codes)
        })
        .collect();
    let (unneeded, unknown) = (code(ErrorCode::ElectionNotNeeded), code(ErrorCode::UnknownTopicOrPartition));
    assert_eq!(told, [(name.as_str(), vec![unneeded, unknown]), ("no-such", vec![unknown])]);
    // Of all, only those that need it are told.
    let all = message!(ElectLeadersRequest { topic_partitions: None, timeout_ms: 1_000 });
    let response = ask!(peer, version, ElectLeaders, all);
    assert_eq!((response.error_code, response.replica_election_results.len()), (OK, 0));
    if version >= 1 {
        let mut other = request;
        for (kind, top, each) in [(1, OK, Some(unneeded)), (2, code(ErrorCode::InvalidRequest), None)] {
            other.election_type = kind;
            let response = ask!(peer, version, ElectLeaders, other.clone());
            let first =
                response.replica_election_results.first().map(|topic| topic.partition_result[0].error_code);
            assert_eq!((response.error_code, first), (top, each));
        }
    }
}

pub async fn describe_configs(peer: &mut impl Peer, version: i16) {
    let name = format!("configs-{version}");
    create(peer, &name).await;
    let resource = |kind: i8, name: &str, keys: Option<Vec<&str>>| {
        message!(describe_configs_request::DescribeConfigsResource {
            resource_type: kind,
            resource_name: name.into(),
            configuration_keys: keys.map(|keys| keys.into_iter().map(Into::into).collect()),
        })
    };
    let mut request = message!(DescribeConfigsRequest {
        resources: vec![
            resource(2, &name, None),
            resource(2, &name, Some(vec!["cleanup.policy", "no.such"])),
            resource(4, "1", None),
            resource(4, "", Some(Vec::new())),
            resource(2, "no-such", None),
            resource(2, "a/b", None),
            resource(4, "99", None),
            resource(99, "x", None),
        ],
        include_synonyms: true,
    });
    request.include_documentation = version >= 3;
    let results = ask!(peer, version, DescribeConfigs, request).results;
    let codes: Vec<i16> = results.iter().map(|result| result.error_code).collect();
    let invalid = code(ErrorCode::InvalidRequest);
    let (unknown, bad) = (code(ErrorCode::UnknownTopicOrPartition), code(ErrorCode::InvalidTopicException));
    assert_eq!(codes, [OK, OK, OK, OK, unknown, bad, invalid, invalid]);
    let counts: Vec<usize> = results[..4].iter().map(|result| result.configs.len()).collect();
    assert!(counts[0] >= 30 && counts[1] == 1 && counts[2] > counts[0] && counts[3] == 0, "{counts:?}");
    let policy = &results[1].configs[0];
    assert_eq!((policy.value.as_ref().unwrap().as_str(), policy.config_source), ("delete", 5));
    assert!(!policy.synonyms.is_empty());
    if version >= 3 {
        assert!(policy.config_type > 0 && policy.documentation.is_some());
    }
    assert!(results[2].configs.iter().any(|row| row.name.as_str() == "default.replication.factor"));
}

pub async fn describe_cluster(peer: &mut impl Peer, version: i16) {
    let request = message!(DescribeClusterRequest { include_cluster_authorized_operations: true });
    let response = ask!(peer, version, DescribeCluster, request);
    assert_eq!((response.error_code, response.controller_id, response.brokers.len()), (OK, 1, 1));
    assert!(!response.cluster_id.is_empty() && response.cluster_authorized_operations > 0);
    if version >= 1 {
        for (kind, error) in [(2, ErrorCode::MismatchedEndpointType), (9, ErrorCode::UnsupportedEndpointType)]
        {
            let request = message!(DescribeClusterRequest { endpoint_type: kind });
            assert_eq!(ask!(peer, version, DescribeCluster, request).error_code, code(error));
        }
    }
}

pub async fn alter_reassignments(peer: &mut impl Peer, version: i16) {
    let name = format!("reassign-{version}");
    create(peer, &name).await;
    let asked = |index: i32, replicas: Option<Vec<i32>>| {
        message!(alter_partition_reassignments_request::ReassignablePartition {
            partition_index: index,
            replicas: replicas,
        })
    };
    let wanted = [Some(vec![1]), None, Some(vec![2]), Some(vec![1, 1]), Some(Vec::new())];
    let refused = ErrorCode::InvalidReplicaAssignment;
    let expected = [ErrorCode::None, ErrorCode::NoReassignmentInProgress, refused, refused, refused];
    for (topic, index, replicas, error) in wanted
        .into_iter()
        .zip(expected)
        .map(|(replicas, error)| (name.as_str(), 0, replicas, error))
        .chain([("no-such", 0, Some(vec![1]), ErrorCode::UnknownTopicOrPartition)])
        .chain([(name.as_str(), 7, None, ErrorCode::UnknownTopicOrPartition)])
    {
        let topic = message!(alter_partition_reassignments_request::ReassignableTopic {
            name: topic.into(),
            partitions: vec![asked(index, replicas.clone())],
        });
        let request = message!(AlterPartitionReassignmentsRequest { timeout_ms: 1_000, topics: vec![topic] });
        let response = ask!(peer, version, AlterPartitionReassignments, request);
        let told = &response.responses[0].partitions[0];
        assert_eq!((response.error_code, told.error_code), (OK, code(error)), "{replicas:?} {told:?}");
    }
}

pub async fn list_reassignments(peer: &mut impl Peer, version: i16) {
    let all = message!(ListPartitionReassignmentsRequest { timeout_ms: 1_000, topics: None });
    let response = ask!(peer, version, ListPartitionReassignments, all);
    assert_eq!((response.error_code, response.topics.len()), (OK, 0));
}

pub async fn unregister_broker(peer: &mut impl Peer, version: i16) {
    let response = ask!(peer, version, UnregisterBroker, message!(UnregisterBrokerRequest { broker_id: 99 }));
    assert_eq!(response.error_code, code(ErrorCode::BrokerIdNotRegistered));
}

pub async fn describe_log_dirs(peer: &mut impl Peer, version: i16) {
    let name = format!("dirs-{version}");
    create(peer, &name).await;
    let asked = |name: &str, partitions: Vec<i32>| {
        message!(describe_log_dirs_request::DescribableLogDirTopic {
            topic: name.into(),
            partitions: partitions
        })
    };
    let some = vec![asked(&name, vec![0, 7]), asked("no-such", vec![0])];
    for (topics, most) in [(Some(some), 1), (None, usize::MAX)] {
        let request = message!(DescribeLogDirsRequest { topics: topics });
        let response = ask!(peer, version, DescribeLogDirs, request);
        assert_eq!((response.error_code, response.results.len()), (OK, 1));
        let result = &response.results[0];
        let found = result.topics.iter().find(|topic| topic.name.as_str() == name).unwrap();
        assert!(!result.log_dir.is_empty() && result.topics.len() <= most);
        let partition = &found.partitions[0];
        assert_eq!((found.partitions.len(), partition.partition_index, partition.offset_lag), (1, 0, 0));
    }
}

pub async fn describe_quorum(peer: &mut impl Peer, version: i16) {
    let name = format!("quorum-{version}");
    create(peer, &name).await;
    let topic = |name: &str, indexes: &[i32]| {
        let at = |index: &i32| message!(describe_quorum_request::PartitionData { partition_index: *index });
        message!(describe_quorum_request::TopicData {
            topic_name: name.into(),
            partitions: indexes.iter().map(at).collect(),
        })
    };
    let topics = vec![topic(METADATA_TOPIC, &[0, 1]), topic(&name, &[0, 1])];
    let response = ask!(peer, version, DescribeQuorum, message!(DescribeQuorumRequest { topics: topics }));
    assert_eq!((response.error_code, response.topics.len()), (OK, 2));
    for topic in &response.topics {
        let (led, unknown) = (&topic.partitions[0], &topic.partitions[1]);
        assert_eq!((led.error_code, led.leader_id, led.observers.len()), (OK, 1, 0), "{response:?}");
        assert!(led.high_watermark > 0 && led.current_voters[0].log_end_offset >= led.high_watermark);
        assert_eq!((led.current_voters.len(), led.current_voters[0].replica_id), (1, 1));
        assert_eq!(led.current_voters[0].last_caught_up_timestamp > 0, version >= 1);
        let unknown = (unknown.error_code, unknown.leader_id);
        assert_eq!(unknown, (code(ErrorCode::UnknownTopicOrPartition), -1));
    }
    assert_eq!(response.nodes.len(), usize::from(version >= 2));
}

pub async fn api_versions(peer: &mut impl Peer, version: i16) {
    let mut request = ApiVersionsRequest::default();
    if version >= 3 {
        let nameless = ask!(peer, version, ApiVersions, request.clone());
        assert_eq!(nameless.error_code, code(ErrorCode::InvalidRequest));
        (request.client_software_name, request.client_software_version) = ("test".into(), "1.0-a".into());
    }
    let response = ask!(peer, version, ApiVersions, request);
    let told: Vec<_> =
        response.api_keys.iter().map(|row| (row.api_key, row.min_version, row.max_version)).collect();
    let table: Vec<_> = TABLE.iter().map(|row| (row.key.number(), row.advertised_first, row.last)).collect();
    assert_eq!((response.error_code, told), (OK, table));
}

pub async fn init_producer_id(peer: &mut impl Peer, version: i16) {
    let plain = message!(InitProducerIdRequest { transactional_id: None });
    let first = ask!(peer, version, InitProducerId, plain.clone());
    let second = ask!(peer, version, InitProducerId, plain.clone());
    assert_eq!((first.error_code, first.producer_epoch, second.producer_epoch), (OK, 0, 0));
    assert!(first.producer_id >= 0 && first.producer_id != second.producer_id);
    for (id, error) in
        [("tx", ErrorCode::TransactionalIdAuthorizationFailed), ("", ErrorCode::InvalidRequest)]
    {
        let request = message!(InitProducerIdRequest {
            transactional_id: Some(id.into()),
            transaction_timeout_ms: 1000
        });
        let refused = ask!(peer, version, InitProducerId, request);
        assert_eq!((refused.error_code, refused.producer_id), (code(error), -1));
    }
    if version >= 3 {
        let mut request = plain;
        request.producer_id = first.producer_id;
        assert_eq!(
            ask!(peer, version, InitProducerId, request.clone()).error_code,
            code(ErrorCode::InvalidRequest)
        );
        request.producer_epoch = 0;
        let renewed = ask!(peer, version, InitProducerId, request);
        assert_eq!((renewed.error_code, renewed.producer_epoch), (OK, 0));
        assert_ne!(renewed.producer_id, first.producer_id);
    }
}
