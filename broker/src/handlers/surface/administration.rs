//! What tools and consoles ask.

use super::*;

pub async fn one(peer: &mut impl Peer, key: ApiKey, version: i16) {
    match key {
        ApiKey::DescribeAcls | ApiKey::CreateAcls | ApiKey::DeleteAcls => acls(peer, key, version).await,
        ApiKey::AlterReplicaLogDirs => alter_replica_log_dirs(peer, version).await,
        ApiKey::DescribeClientQuotas => {
            let told = ask!(peer, version, DescribeClientQuotas, DescribeClientQuotasRequest::default());
            assert_eq!((told.error_code, told.entries), (OK, Some(Vec::new())));
        }
        ApiKey::DescribeUserScramCredentials => credentials(peer, version).await,
        ApiKey::DescribeProducers => producers(peer, version).await,
        ApiKey::DescribeTransactions | ApiKey::ListTransactions => transactions(peer, version, key).await,
        ApiKey::ListConfigResources => list_config_resources(peer, version).await,
        key => panic!("{key:?} is not asked"),
    }
}

async fn acls(peer: &mut impl Peer, key: ApiKey, version: i16) {
    let disabled = code(ErrorCode::SecurityDisabled);
    match key {
        ApiKey::DescribeAcls => {
            let told = ask!(peer, version, DescribeAcls, DescribeAclsRequest::default());
            assert_eq!(told.error_code, disabled);
        }
        ApiKey::CreateAcls => {
            let rule = create_acls_request::AclCreation::default();
            let request = message!(CreateAclsRequest { creations: vec![rule.clone(), rule] });
            let results = ask!(peer, version, CreateAcls, request).results;
            assert_eq!(results.iter().map(|one| one.error_code).collect::<Vec<_>>(), [disabled; 2]);
        }
        _ => {
            let request = message!(DeleteAclsRequest { filters: vec![Default::default()] });
            let results = ask!(peer, version, DeleteAcls, request).filter_results;
            assert_eq!(results.iter().map(|one| one.error_code).collect::<Vec<_>>(), [disabled]);
        }
    }
}

async fn alter_replica_log_dirs(peer: &mut impl Peer, version: i16) {
    let name = format!("to-move-{version}");
    create(peer, &name).await;
    let described = ask!(peer, 4, DescribeLogDirs, DescribeLogDirsRequest::default());
    let own = described.results[0].log_dir.clone();
    let directory = |path: StrBytes| {
        let topic = message!(alter_replica_log_dirs_request::AlterReplicaLogDirTopic {
            name: name.as_str().into(),
            partitions: vec![0, 7],
        });
        message!(alter_replica_log_dirs_request::AlterReplicaLogDir { path: path, topics: vec![topic] })
    };
    let request =
        message!(AlterReplicaLogDirsRequest { dirs: vec![directory(own), directory("/nowhere".into())] });
    let told = ask!(peer, version, AlterReplicaLogDirs, request).results;
    let codes: Vec<i16> = told.iter().flat_map(|t| &t.partitions).map(|p| p.error_code).collect();
    let (unknown, none) = (code(ErrorCode::UnknownTopicOrPartition), code(ErrorCode::LogDirNotFound));
    assert_eq!(codes, [OK, unknown, none, none]);
    delete(peer, &name).await;
}

async fn credentials(peer: &mut impl Peer, version: i16) {
    let user = |name: &str| message!(describe_user_scram_credentials_request::UserName { name: name.into() });
    for (users, expected) in [
        (None, vec![]),
        (
            Some(vec![user("a"), user("b"), user("a")]),
            vec![ErrorCode::DuplicateResource, ErrorCode::ResourceNotFound],
        ),
    ] {
        let request = message!(DescribeUserScramCredentialsRequest { users: users });
        let told = ask!(peer, version, DescribeUserScramCredentials, request);
        let codes: Vec<i16> = told.results.iter().map(|result| result.error_code).collect();
        assert_eq!((told.error_code, codes), (OK, expected.into_iter().map(code).collect()));
    }
}

async fn producers(peer: &mut impl Peer, version: i16) {
    let name = format!("written-{version}");
    create(peer, &name).await;
    let topic = |name: &str| {
        message!(describe_producers_request::TopicRequest {
            name: name.into(),
            partition_indexes: vec![0, 3],
        })
    };
    let request = message!(DescribeProducersRequest { topics: vec![topic(&name), topic("no-such")] });
    let told = ask!(peer, version, DescribeProducers, request).topics;
    let codes: Vec<i16> = told.iter().flat_map(|t| &t.partitions).map(|p| p.error_code).collect();
    let unknown = code(ErrorCode::UnknownTopicOrPartition);
    assert_eq!(codes, [OK, unknown, unknown, unknown]);
    assert!(told[0].partitions[0].active_producers.is_empty());
    delete(peer, &name).await;
}

async fn transactions(peer: &mut impl Peer, version: i16, key: ApiKey) {
    if key == ApiKey::DescribeTransactions {
        let request = message!(DescribeTransactionsRequest { transactional_ids: vec!["a".into()] });
        let told = ask!(peer, version, DescribeTransactions, request).transaction_states;
        assert_eq!(told[0].error_code, code(ErrorCode::TransactionalIdNotFound));
        return;
    }
    let request = message!(ListTransactionsRequest { state_filters: vec!["Ongoing".into(), "Lost".into()] });
    let told = ask!(peer, version, ListTransactions, request);
    assert_eq!((told.error_code, told.transaction_states.len()), (OK, 0));
    assert_eq!(told.unknown_state_filters, [StrBytes::from("Lost")]);
}

async fn list_config_resources(peer: &mut impl Peer, version: i16) {
    let name = format!("listed-{version}");
    create(peer, &name).await;
    let told = ask!(peer, version, ListConfigResources, ListConfigResourcesRequest::default());
    let listed: Vec<(i8, &str)> =
        told.config_resources.iter().map(|one| (one.resource_type, one.resource_name.as_str())).collect();
    // Before version 1 only subscriptions to clients' metrics are asked for.
    assert_eq!(
        (listed.contains(&(2, name.as_str())), listed.contains(&(4, "1"))),
        (version > 0, version > 0)
    );
    if version > 0 {
        let request = message!(ListConfigResourcesRequest { resource_types: vec![16] });
        assert!(ask!(peer, version, ListConfigResources, request).config_resources.is_empty());
        let request = message!(ListConfigResourcesRequest { resource_types: vec![77] });
        let told = ask!(peer, version, ListConfigResources, request);
        assert_eq!(told.error_code, code(ErrorCode::UnsupportedVersion));
    }
    delete(peer, &name).await;
}
