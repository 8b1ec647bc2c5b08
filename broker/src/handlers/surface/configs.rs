//! Topic configurations changed at run time.

use super::*;

/// What a topic says of its own, `name=value`.
async fn own(peer: &mut impl Peer, topic: &str) -> Vec<String> {
    let resource = message!(describe_configs_request::DescribeConfigsResource {
        resource_type: 2,
        resource_name: topic.into(),
        configuration_keys: None,
    });
    let request = message!(DescribeConfigsRequest { resources: vec![resource] });
    let response = ask!(peer, 4, DescribeConfigs, request);
    let rows = response.results[0].configs.iter().filter(|row| row.config_source == 1);
    rows.map(|row| format!("{}={}", row.name.as_str(), row.value.as_ref().unwrap().as_str())).collect()
}

pub async fn replace(peer: &mut impl Peer, version: i16) {
    let name = format!("replaced-{version}");
    create(peer, &name).await;
    let resource = |kind: i8, name: &str, configs: &[(&str, Option<&str>)]| {
        let config = |(name, value): &(&str, Option<&str>)| {
            message!(alter_configs_request::AlterableConfig {
                name: (*name).into(),
                value: value.map(Into::into),
            })
        };
        message!(alter_configs_request::AlterConfigsResource {
            resource_type: kind,
            resource_name: name.into(),
            configs: configs.iter().map(config).collect(),
        })
    };
    let sound: &[(&str, Option<&str>)] =
        &[("segment.bytes", Some("2048")), ("cleanup.policy", Some("compact"))];
    for validate_only in [true, false] {
        let request = message!(AlterConfigsRequest {
            resources: vec![
                resource(2, &name, sound),
                resource(2, "no-such", sound),
                resource(2, "a/b", sound),
                resource(4, "1", &[("node.id", Some("2"))]),
            ],
            validate_only: validate_only,
        });
        let responses = ask!(peer, version, AlterConfigs, request).responses;
        let codes: Vec<i16> = responses.iter().map(|result| result.error_code).collect();
        let (unknown, bad) = (ErrorCode::UnknownTopicOrPartition, ErrorCode::InvalidTopicException);
        assert_eq!(codes, [OK, code(unknown), code(bad), code(ErrorCode::InvalidRequest)]);
        let told = if validate_only {
            vec!["retention.ms=-1"]
        } else {
            vec!["cleanup.policy=compact", "segment.bytes=2048"]
        };
        assert_eq!(own(peer, &name).await, told);
    }
    for (configs, expected) in [
        (&[("segment.bytes", None)][..], ErrorCode::InvalidRequest),
        (&[("segment.bytes", Some("many"))][..], ErrorCode::InvalidConfig),
        (&[("no.such", Some("1"))][..], ErrorCode::InvalidConfig),
    ] {
        let request = message!(AlterConfigsRequest { resources: vec![resource(2, &name, configs)] });
        let responses = ask!(peer, version, AlterConfigs, request).responses;
        assert_eq!(responses[0].error_code, code(expected), "{configs:?}");
        assert!(!responses[0].error_message.as_ref().unwrap().as_str().is_empty());
    }
    delete(peer, &name).await;
}

pub async fn change(peer: &mut impl Peer, version: i16) {
    let name = format!("changed-{version}");
    create(peer, &name).await;
    type One<'a> = (&'a str, i8, Option<&'a str>);
    let resource = |name: &str, configs: &[One<'_>]| {
        let config = |(name, operation, value): &One<'_>| {
            message!(incremental_alter_configs_request::AlterableConfig {
                name: (*name).into(),
                config_operation: *operation,
                value: value.map(Into::into),
            })
        };
        message!(incremental_alter_configs_request::AlterConfigsResource {
            resource_type: 2,
            resource_name: name.into(),
            configs: configs.iter().map(config).collect(),
        })
    };
    let steps: [(&[One<'_>], &[&str]); 3] = [
        (
            &[("segment.bytes", 0, Some("2048")), ("cleanup.policy", 2, Some("compact"))],
            &["cleanup.policy=delete,compact", "retention.ms=-1", "segment.bytes=2048"],
        ),
        (
            &[("cleanup.policy", 3, Some("delete")), ("segment.bytes", 1, None)],
            &["cleanup.policy=compact", "retention.ms=-1"],
        ),
        (&[("cleanup.policy", 1, None)], &["retention.ms=-1"]),
    ];
    for (changes, after) in steps {
        let before = own(peer, &name).await;
        for validate_only in [true, false] {
            let request = message!(IncrementalAlterConfigsRequest {
                resources: vec![resource(&name, changes)],
                validate_only: validate_only,
            });
            let responses = ask!(peer, version, IncrementalAlterConfigs, request).responses;
            assert_eq!(responses[0].error_code, OK, "{:?}", responses[0]);
            let told = own(peer, &name).await;
            if validate_only { assert_eq!(told, before) } else { assert_eq!(told, after) }
        }
    }
    let (request_error, config_error) = (ErrorCode::InvalidRequest, ErrorCode::InvalidConfig);
    let refused: [(&[One<'_>], ErrorCode); 6] = [
        (&[("segment.bytes", 0, None)], request_error),
        (&[("segment.bytes", 9, Some("2048"))], request_error),
        (&[("segment.bytes", 0, Some("2048")), ("segment.bytes", 1, None)], request_error),
        (&[("segment.bytes", 0, Some("12"))], config_error),
        (&[("segment.bytes", 2, Some("2048"))], config_error),
        (&[("no.such", 0, Some("1"))], config_error),
    ];
    for (changes, expected) in refused {
        let request = message!(IncrementalAlterConfigsRequest { resources: vec![resource(&name, changes)] });
        let responses = ask!(peer, version, IncrementalAlterConfigs, request).responses;
        assert_eq!(responses[0].error_code, code(expected), "{changes:?}");
    }
    let sound: &[One<'_>] = &[("segment.bytes", 0, Some("2048"))];
    let request = message!(IncrementalAlterConfigsRequest {
        resources: vec![resource(&name, sound), resource(&name, sound), resource("no-such", sound)],
    });
    let responses = ask!(peer, version, IncrementalAlterConfigs, request).responses;
    let codes: Vec<i16> = responses.iter().map(|result| result.error_code).collect();
    assert_eq!(codes, [code(request_error), code(request_error), code(ErrorCode::UnknownTopicOrPartition)]);
    assert_eq!(own(peer, &name).await, ["retention.ms=-1"]);
    inherited(peer, &name, version).await;
    delete(peer, &name).await;
}

/// What brokers say at run time, topics inherit.
async fn inherited(peer: &mut impl Peer, topic: &str, version: i16) {
    let config = |name: &str, value: Option<&str>| {
        message!(incremental_alter_configs_request::AlterableConfig {
            name: name.into(),
            config_operation: i8::from(value.is_none()),
            value: value.map(Into::into),
        })
    };
    let steps = [
        ("", "log.segment.bytes", Some("4096"), OK, Some(("4096", 3))),
        ("1", "log.segment.bytes", Some("8192"), OK, Some(("8192", 2))),
        ("1", "log.segment.bytes", None, OK, Some(("4096", 3))),
        ("", "log.segment.bytes", None, OK, Some(("67108864", 5))),
        ("9", "log.segment.bytes", Some("8192"), code(ErrorCode::InvalidRequest), None),
        ("1", "log.segment.bytes", Some("8"), code(ErrorCode::InvalidConfig), None),
        ("1", "data.dir", Some("/elsewhere"), code(ErrorCode::InvalidRequest), None),
        ("", "no.such", Some("8"), code(ErrorCode::InvalidRequest), None),
    ];
    for (broker, name, value, expected, after) in steps {
        let resource = message!(incremental_alter_configs_request::AlterConfigsResource {
            resource_type: 4,
            resource_name: broker.into(),
            configs: vec![config(name, value)],
        });
        let request = message!(IncrementalAlterConfigsRequest { resources: vec![resource] });
        let response = ask!(peer, version, IncrementalAlterConfigs, request).responses;
        assert_eq!(response[0].error_code, expected, "{response:?}");
        let Some((text, source)) = after else { continue };
        for (kind, resource, key) in [(2, topic, "segment.bytes"), (4, "1", "log.segment.bytes")] {
            let resource = message!(describe_configs_request::DescribeConfigsResource {
                resource_type: kind,
                resource_name: resource.into(),
                configuration_keys: Some(vec![key.into()]),
            });
            let request =
                message!(DescribeConfigsRequest { resources: vec![resource], include_synonyms: true });
            let told = ask!(peer, 4, DescribeConfigs, request).results;
            let row = &told[0].configs[0];
            let value = row.value.as_ref().unwrap().as_str();
            assert_eq!((value, row.config_source, row.read_only), (text, source, false), "{key}");
            assert_eq!(row.synonyms[0].name.as_str(), "log.segment.bytes");
        }
    }
    // What consoles look for.
    let resource = message!(describe_configs_request::DescribeConfigsResource {
        resource_type: 4,
        resource_name: "1".into(),
        configuration_keys: None,
    });
    let told = ask!(peer, 4, DescribeConfigs, message!(DescribeConfigsRequest { resources: vec![resource] }))
        .results;
    let names: Vec<&str> = told[0].configs.iter().map(|row| row.name.as_str()).collect();
    let looked_for =
        ["inter.broker.protocol.version", "log.dirs", "default.replication.factor", "preallocate"];
    assert!(looked_for.iter().all(|name| names.contains(name)), "{names:?}");
    let unique: std::collections::BTreeSet<_> = names.iter().collect();
    assert_eq!(unique.len(), names.len(), "none is told twice");
}
