//! Groups of consumers.

use bytes::Bytes;

use super::*;

/// Waits until there is a coordinator: the first question makes its topic.
async fn coordinator(peer: &mut impl Peer, group: &str) {
    for _ in 0..200 {
        let request = message!(FindCoordinatorRequest { key: group.into() });
        let response = ask!(peer, 1, FindCoordinator, request);
        if response.error_code == OK {
            return;
        }
        assert_eq!(response.error_code, code(ErrorCode::CoordinatorNotAvailable));
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("no coordinator for {group}");
}

/// A consumer's subscription to `topic`, as Java writes it.
fn subscription(topic: &str) -> Bytes {
    let mut bytes = vec![0, 0, 0, 0, 0, 1];
    bytes.extend((topic.len() as i16).to_be_bytes());
    bytes.extend(topic.as_bytes());
    bytes.extend([0xff; 4]);
    bytes.into()
}

fn join(group: &str, member: &str) -> JoinGroupRequest {
    let protocol = message!(join_group_request::JoinGroupRequestProtocol {
        name: "range".into(),
        metadata: subscription("read"),
    });
    message!(JoinGroupRequest {
        group_id: group.into(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 10_000,
        member_id: member.into(),
        protocol_type: "consumer".into(),
        protocols: vec![protocol],
    })
}

fn sync(group: &str, member: &str, generation: i32) -> SyncGroupRequest {
    let given = message!(sync_group_request::SyncGroupRequestAssignment {
        member_id: member.into(),
        assignment: Bytes::from_static(b"all"),
    });
    message!(SyncGroupRequest {
        group_id: group.into(),
        generation_id: generation,
        member_id: member.into(),
        assignments: vec![given],
    })
}

/// A member that has its assignment: its id. It is in generation 1.
async fn member(peer: &mut impl Peer, group: &str) -> String {
    coordinator(peer, group).await;
    let joined = ask!(peer, 3, JoinGroup, join(group, ""));
    assert_eq!((joined.error_code, joined.generation_id), (OK, 1), "{joined:?}");
    let id = joined.member_id.as_str().to_owned();
    let synced = ask!(peer, 3, SyncGroup, sync(group, &id, 1));
    assert_eq!((synced.error_code, &synced.assignment[..]), (OK, &b"all"[..]));
    id
}

async fn leave(peer: &mut impl Peer, group: &str, member: &str) -> i16 {
    let request = message!(LeaveGroupRequest { group_id: group.into(), member_id: member.into() });
    ask!(peer, 2, LeaveGroup, request).error_code
}

/// Takes everything away that a version has made.
async fn forget(peer: &mut impl Peer, group: &str, member: &str) {
    assert_eq!(leave(peer, group, member).await, OK);
    let request = message!(DeleteGroupsRequest { groups_names: vec![group.into()] });
    let response = ask!(peer, 2, DeleteGroups, request);
    assert_eq!(response.results[0].error_code, OK, "{response:?}");
}

pub async fn find_coordinator(peer: &mut impl Peer, version: i16) {
    coordinator(peer, "found").await;
    let mut request = FindCoordinatorRequest::default();
    if version >= 4 {
        request.coordinator_keys = vec!["found".into(), "other".into()];
    } else {
        request.key = "found".into();
    }
    let response = ask!(peer, version, FindCoordinator, request.clone());
    if version >= 4 {
        assert!(response.coordinators.iter().all(|each| (each.error_code, each.node_id) == (OK, 1)));
    } else {
        assert_eq!((response.error_code, response.node_id), (OK, 1));
        assert!(response.port > 0 && !response.host.is_empty());
    }
    if version >= 1 {
        for (kind, error) in
            [(1, ErrorCode::TransactionalIdAuthorizationFailed), (9, ErrorCode::InvalidRequest)]
        {
            request.key_type = kind;
            let response = ask!(peer, version, FindCoordinator, request.clone());
            let told = response.coordinators.first().map_or(response.error_code, |each| each.error_code);
            assert_eq!(told, code(error));
        }
    }
}

pub async fn join_group(peer: &mut impl Peer, version: i16) {
    let group = format!("join-{version}");
    coordinator(peer, &group).await;
    let mut request = join(&group, "");
    if version < 1 {
        request.rebalance_timeout_ms = -1;
    }
    let mut joined = ask!(peer, version, JoinGroup, request.clone());
    if version >= 4 {
        assert_eq!(joined.error_code, code(ErrorCode::MemberIdRequired));
        request.member_id = joined.member_id;
        joined = ask!(peer, version, JoinGroup, request.clone());
    }
    assert_eq!((joined.error_code, joined.generation_id, joined.members.len()), (OK, 1, 1), "{joined:?}");
    assert_eq!(
        (joined.leader.clone(), joined.protocol_name),
        (joined.member_id.clone(), Some("range".into()))
    );
    if version >= 7 {
        assert_eq!(joined.protocol_type, Some("consumer".into()));
    }
    let refused = |group: &str, id: &str, session_timeout_ms: i32| {
        let mut refused = request.clone();
        (refused.group_id, refused.member_id) = (group.into(), id.into());
        refused.session_timeout_ms = session_timeout_ms;
        refused
    };
    for (request, error) in [
        (refused("", "", 10_000), ErrorCode::InvalidGroupId),
        (refused(&group, "nobody", 10_000), ErrorCode::UnknownMemberId),
        (refused(&group, "", 1), ErrorCode::InvalidSessionTimeout),
    ] {
        let response = ask!(peer, version, JoinGroup, request);
        assert_eq!((response.error_code, response.generation_id), (code(error), -1));
    }
    let mut other = request.clone();
    (other.protocol_type, other.member_id) = ("connect".into(), "".into());
    let response = ask!(peer, version, JoinGroup, other);
    assert_eq!(response.error_code, code(ErrorCode::InconsistentGroupProtocol));
    forget(peer, &group, &joined.member_id).await;
}

pub async fn sync_group(peer: &mut impl Peer, version: i16) {
    let group = format!("sync-{version}");
    let id = member(peer, &group).await;
    let of = |generation: i32, member: &str| {
        let mut request = sync(&group, member, generation);
        if version >= 5 {
            (request.protocol_type, request.protocol_name) = (Some("consumer".into()), Some("range".into()));
        }
        request
    };
    let synced = ask!(peer, version, SyncGroup, of(1, &id));
    assert_eq!((synced.error_code, &synced.assignment[..]), (OK, &b"all"[..]));
    if version >= 5 {
        assert_eq!(synced.protocol_name, Some("range".into()));
        let mut other = of(1, &id);
        other.protocol_name = Some("sticky".into());
        let response = ask!(peer, version, SyncGroup, other);
        assert_eq!(response.error_code, code(ErrorCode::InconsistentGroupProtocol));
    }
    let response = ask!(peer, version, SyncGroup, of(2, &id));
    assert_eq!(response.error_code, code(ErrorCode::IllegalGeneration));
    let response = ask!(peer, version, SyncGroup, of(1, "nobody"));
    assert_eq!(response.error_code, code(ErrorCode::UnknownMemberId));
    forget(peer, &group, &id).await;
}

pub async fn heartbeat(peer: &mut impl Peer, version: i16) {
    let group = format!("beat-{version}");
    let id = member(peer, &group).await;
    let of = |generation: i32, member: &str| {
        let (group_id, member_id) = (group.as_str().into(), member.into());
        message!(HeartbeatRequest { group_id: group_id, generation_id: generation, member_id: member_id })
    };
    for (request, error) in [
        (of(1, &id), ErrorCode::None),
        (of(7, &id), ErrorCode::IllegalGeneration),
        (of(1, "nobody"), ErrorCode::UnknownMemberId),
    ] {
        assert_eq!(ask!(peer, version, Heartbeat, request).error_code, code(error));
    }
    forget(peer, &group, &id).await;
}

pub async fn leave_group(peer: &mut impl Peer, version: i16) {
    let group = format!("leave-{version}");
    let id = member(peer, &group).await;
    if version < 3 {
        assert_eq!(leave(peer, &group, "nobody").await, code(ErrorCode::UnknownMemberId));
        let request = message!(LeaveGroupRequest { group_id: group.into(), member_id: id.into() });
        assert_eq!(ask!(peer, version, LeaveGroup, request).error_code, OK);
        return;
    }
    let identity = |id: &str| message!(leave_group_request::MemberIdentity { member_id: id.into() });
    let members = vec![identity("nobody"), identity(&id)];
    let request = message!(LeaveGroupRequest { group_id: group.into(), members: members });
    let response = ask!(peer, version, LeaveGroup, request);
    let told: Vec<i16> = response.members.iter().map(|member| member.error_code).collect();
    assert_eq!((response.error_code, told), (OK, vec![code(ErrorCode::UnknownMemberId), OK]));
}

fn commit(version: i16, group: &str, topic: &str, id: Uuid, partition: i32) -> OffsetCommitRequest {
    let mut at = message!(offset_commit_request::OffsetCommitRequestPartition {
        partition_index: partition,
        committed_offset: 42,
        committed_metadata: Some("note".into()),
    });
    if version >= 6 {
        at.committed_leader_epoch = 3;
    }
    let mut topic = message!(offset_commit_request::OffsetCommitRequestTopic {
        name: topic.into(),
        partitions: vec![at],
    });
    if version >= 10 {
        (topic.name, topic.topic_id) = ("".into(), id);
    }
    message!(OffsetCommitRequest {
        group_id: group.into(),
        generation_id_or_member_epoch: -1,
        topics: vec![topic],
    })
}

pub async fn offset_commit(peer: &mut impl Peer, version: i16) {
    let group = format!("commit-{version}");
    coordinator(peer, &group).await;
    let id = create(peer, &group).await;
    for (partition, error) in [(0, ErrorCode::None), (9, ErrorCode::UnknownTopicOrPartition)] {
        let response = ask!(peer, version, OffsetCommit, commit(version, &group, &group, id, partition));
        assert_eq!(response.topics[0].partitions[0].error_code, code(error), "{version}");
    }
    let unknown = if version >= 10 { ErrorCode::UnknownTopicId } else { ErrorCode::UnknownTopicOrPartition };
    let request = commit(version, &group, "nowhere", Uuid::from_bytes([9; 16]), 0);
    let response = ask!(peer, version, OffsetCommit, request);
    assert_eq!(response.topics[0].partitions[0].error_code, code(unknown));
    let mut long = commit(version, &group, &group, id, 0);
    long.topics[0].partitions[0].committed_metadata = Some("x".repeat(5_000).into());
    let response = ask!(peer, version, OffsetCommit, long);
    assert_eq!(response.topics[0].partitions[0].error_code, code(ErrorCode::OffsetMetadataTooLarge));
    let mut member = commit(version, &group, &group, id, 0);
    (member.generation_id_or_member_epoch, member.member_id) = (3, "nobody".into());
    let response = ask!(peer, version, OffsetCommit, member);
    assert_eq!(response.topics[0].partitions[0].error_code, code(ErrorCode::UnknownMemberId));
    let mut unknown = commit(version, "nobody's", &group, id, 0);
    (unknown.generation_id_or_member_epoch, unknown.member_id) = (3, "nobody".into());
    coordinator(peer, "nobody's").await;
    let response = ask!(peer, version, OffsetCommit, unknown);
    let error = if version >= 9 { ErrorCode::GroupIdNotFound } else { ErrorCode::IllegalGeneration };
    assert_eq!(response.topics[0].partitions[0].error_code, code(error));
    delete(peer, &group).await;
}

pub async fn offset_fetch(peer: &mut impl Peer, version: i16) {
    let group = format!("committed-{version}");
    coordinator(peer, &group).await;
    let id = create(peer, &group).await;
    let response = ask!(peer, 7, OffsetCommit, commit(7, &group, &group, id, 0));
    assert_eq!(response.topics[0].partitions[0].error_code, OK);
    if version < 8 {
        let topic = message!(offset_fetch_request::OffsetFetchRequestTopic {
            name: group.as_str().into(),
            partition_indexes: vec![0, 5],
        });
        let mut request =
            message!(OffsetFetchRequest { group_id: group.as_str().into(), topics: Some(vec![topic]) });
        let response = ask!(peer, version, OffsetFetch, request.clone());
        let told: Vec<i64> = response.topics[0].partitions.iter().map(|at| at.committed_offset).collect();
        assert_eq!((response.error_code, told), (OK, vec![42, -1]));
        assert_eq!(response.topics[0].partitions[0].metadata, Some("note".into()));
        if version >= 2 {
            request.topics = None;
            let response = ask!(peer, version, OffsetFetch, request);
            assert_eq!(response.topics[0].partitions.len(), 1);
        }
        return delete(peer, &group).await;
    }
    let mut topic = message!(offset_fetch_request::OffsetFetchRequestTopics { partition_indexes: vec![0] });
    if version >= 10 {
        topic.topic_id = id;
    } else {
        topic.name = group.as_str().into();
    }
    let of = |topics| {
        message!(offset_fetch_request::OffsetFetchRequestGroup {
            group_id: group.as_str().into(),
            topics: topics,
        })
    };
    let request = message!(OffsetFetchRequest { groups: vec![of(Some(vec![topic])), of(None)] });
    let response = ask!(peer, version, OffsetFetch, request.clone());
    for told in &response.groups {
        let at = &told.topics[0].partitions[0];
        assert_eq!((told.error_code, at.committed_offset, at.committed_leader_epoch), (OK, 42, 3));
    }
    // What was committed for a topic that is gone is gone, also where another has its name.
    delete(peer, &group).await;
    let again = create(peer, &group).await;
    let mut request = request;
    if version >= 10
        && let Some(topics) = &mut request.groups[0].topics
    {
        topics[0].topic_id = again;
    }
    let response = ask!(peer, version, OffsetFetch, request);
    assert_eq!(response.groups[0].topics[0].partitions[0].committed_offset, -1);
    assert!(response.groups[1].topics.is_empty());
    delete(peer, &group).await;
}

pub async fn offset_delete(peer: &mut impl Peer, version: i16) {
    let group = "forgets";
    coordinator(peer, group).await;
    let id = create(peer, group).await;
    let response = ask!(peer, 7, OffsetCommit, commit(7, group, group, id, 0));
    assert_eq!(response.topics[0].partitions[0].error_code, OK);
    let of = |group: &str, topic: &str| {
        let partition = message!(offset_delete_request::OffsetDeleteRequestPartition { partition_index: 0 });
        let topic = message!(offset_delete_request::OffsetDeleteRequestTopic {
            name: topic.into(),
            partitions: vec![partition],
        });
        message!(OffsetDeleteRequest { group_id: group.into(), topics: vec![topic] })
    };
    let response = ask!(peer, version, OffsetDelete, of("nobody's", group));
    assert_eq!(response.error_code, code(ErrorCode::GroupIdNotFound));
    let response = ask!(peer, version, OffsetDelete, of(group, "nowhere"));
    let told = response.topics[0].partitions[0].error_code;
    assert_eq!(told, code(ErrorCode::UnknownTopicOrPartition));
    let response = ask!(peer, version, OffsetDelete, of(group, group));
    assert_eq!((response.error_code, response.topics[0].partitions[0].error_code), (OK, OK));
    delete(peer, group).await;
}

pub async fn list_groups(peer: &mut impl Peer, version: i16) {
    let group = format!("list-{version}");
    let id = member(peer, &group).await;
    let mut request = ListGroupsRequest::default();
    let response = ask!(peer, version, ListGroups, request.clone());
    let listed = response.groups.iter().find(|each| *each.group_id == *group).expect("it is listed");
    assert_eq!((response.error_code, &*listed.protocol_type), (OK, "consumer"));
    if version >= 4 {
        assert_eq!(&*listed.group_state, "Stable");
        request.states_filter = vec!["empty".into()];
        let response = ask!(peer, version, ListGroups, request.clone());
        assert!(response.groups.iter().all(|each| *each.group_id != *group));
    }
    if version >= 5 {
        assert_eq!(&*listed.group_type, "classic");
        (request.states_filter, request.types_filter) = (Vec::new(), vec!["share".into()]);
        assert!(ask!(peer, version, ListGroups, request).groups.is_empty());
    }
    forget(peer, &group, &id).await;
}

pub async fn describe_groups(peer: &mut impl Peer, version: i16) {
    let group = format!("describe-{version}");
    let id = member(peer, &group).await;
    let mut request =
        message!(DescribeGroupsRequest { groups: vec![group.as_str().into(), "nobody's".into()] });
    request.include_authorized_operations = version >= 3;
    let response = ask!(peer, version, DescribeGroups, request);
    let (there, missing) = (&response.groups[0], &response.groups[1]);
    assert_eq!((there.error_code, &*there.group_state, &*there.protocol_data), (OK, "Stable", "range"));
    assert_eq!((&*there.members[0].member_id, there.members[0].client_id.is_empty()), (&*id, false));
    assert!(there.members[0].client_host.starts_with('/'));
    assert_eq!(there.members[0].member_metadata, subscription("read"));
    let not_found = if version >= 6 { ErrorCode::GroupIdNotFound } else { ErrorCode::None };
    assert_eq!((missing.error_code, &*missing.group_state), (code(not_found), "Dead"));
    forget(peer, &group, &id).await;
}

pub async fn delete_groups(peer: &mut impl Peer, version: i16) {
    let group = format!("delete-{version}");
    let id = member(peer, &group).await;
    let of = |group: &str| message!(DeleteGroupsRequest { groups_names: vec![group.into()] });
    let told = |response: DeleteGroupsResponse| response.results[0].error_code;
    assert_eq!(told(ask!(peer, version, DeleteGroups, of(&group))), code(ErrorCode::NonEmptyGroup));
    assert_eq!(told(ask!(peer, version, DeleteGroups, of("nobody's"))), code(ErrorCode::GroupIdNotFound));
    forget(peer, &group, &id).await;
    assert_eq!(told(ask!(peer, version, DeleteGroups, of(&group))), code(ErrorCode::GroupIdNotFound));
}
