//! Requests about many groups.

use super::*;

#[tokio::test]
async fn a_fetch_of_many_groups_asks_a_quorum_once_for_each_partition() {
    let fixture = fixture();
    let mut find = FindCoordinatorRequest::default();
    find.coordinator_keys = vec!["g".into()];
    drop(fixture.ask(4, Request::FindCoordinator(find)).await);
    let mut request = OffsetFetchRequest::default();
    for number in 0..500 {
        let mut group = offset_fetch_request::OffsetFetchRequestGroup::default();
        group.group_id = format!("group {number}").into();
        request.groups.push(group);
    }
    let Response::OffsetFetch(response) = fixture.ask(9, Request::OffsetFetch(request)).await else {
        panic!()
    };
    let names: Vec<_> =
        response.groups.iter().map(|group| (group.group_id.to_string(), group.error_code)).collect();
    let asked: Vec<_> = (0..500).map(|number| (format!("group {number}"), 0)).collect();
    assert_eq!(names, asked);
    let confirmed = fixture.fake.confirmed();
    assert!(confirmed.len() > 20 && confirmed.values().all(|times| *times == 1), "{confirmed:?}");
}
