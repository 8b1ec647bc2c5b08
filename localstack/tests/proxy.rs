//! The fault proxy in front of a real server, as the S3 client of room `objects` meets it.

use std::time::Duration;

use bytes::Bytes;
use varve_common::{Digest, ObjectKey};
use varve_localstack::{Kind, Server, proxy::Proxy};
use varve_objects::{
    Failure, GetError, PutError, S3, Store as _, conformance,
    s3::{Credentials, Options},
};

const BODY: Bytes = Bytes::from_static(b"twenty bytes of body");

struct Rig {
    _server: Server,
    proxy: Proxy,
    store: S3,
}

async fn rig(seed: u64) -> Option<Rig> {
    let server = Server::start_or_skip(Kind::Minio).await?;
    server.create_bucket("varve").await.unwrap();
    let proxy = Proxy::start(server.address(), seed).await.unwrap();
    let credentials = Credentials::Static {
        access_key: server.access_key.clone(),
        secret_key: server.secret_key.clone(),
        session_token: None,
    };
    let options = Options {
        endpoint: Some(proxy.endpoint()),
        request_timeout: Some(Duration::from_millis(500)),
        credentials,
        ..server.options("varve")
    };
    let store = S3::new(options).unwrap();
    Some(Rig { _server: server, proxy, store })
}

impl Rig {
    fn set(&self, rule: &str) {
        self.proxy.set_rules([rule.parse().unwrap()]);
    }

    async fn put(&self, name: &str) -> Result<(), PutError> {
        let key = ObjectKey::new(name.into());
        self.store.put_new(&key, BODY.into(), Digest::of(&BODY)).await
    }

    async fn get(&self, name: &str) -> Result<Bytes, GetError> {
        self.store.get(&ObjectKey::new(name.into())).await
    }
}

#[tokio::test]
async fn without_rules_it_is_not_there() {
    let Some(rig) = rig(1).await else { return };
    for check in conformance::Check::AT_START {
        conformance::check(&rig.store, "through", check).await.unwrap();
    }
}

#[tokio::test]
async fn a_fault_before_the_effect_leaves_nothing_and_one_after_it_leaves_the_object() {
    let Some(rig) = rig(1).await else { return };
    for before in ["status:503:SlowDown", "status:500:InternalError", "hang", "reset"] {
        rig.set(&format!("{before} times=1"));
        let put = rig.put(before).await;
        assert!(matches!(put, Err(PutError::Failed(failure)) if failure.is_retriable()), "{before}");
        assert_eq!(rig.get(before).await, Err(GetError::NotFound), "{before}");
    }
    for after in ["status-after:500:InternalError", "hang-after", "reset-after"] {
        rig.set(&format!("{after} times=1"));
        assert!(matches!(rig.put(after).await, Err(PutError::Failed(Failure::Retry(_)))), "{after}");
        assert_eq!(rig.get(after).await, Ok(BODY), "{after}");
    }
    rig.set("status:403:AccessDenied times=1");
    assert!(matches!(rig.put("denied").await, Err(PutError::Failed(Failure::Denied(_)))));
}

#[tokio::test]
async fn a_body_that_is_not_as_long_as_it_says_is_an_error_and_one_that_is_altered_is_not_noticed_here() {
    let Some(rig) = rig(1).await else { return };
    rig.put("one").await.unwrap();
    for fault in ["truncate", "reset-body", "length:9", "slow:10", "slow-first:2000"] {
        rig.set(&format!("{fault} method=GET times=1"));
        let got = rig.get("one").await;
        assert!(matches!(got, Err(GetError::Failed(Failure::Retry(_)))), "{fault}: {got:?}");
    }
    rig.set("alter method=GET times=1");
    assert!(rig.get("one").await.is_ok_and(|body| body.len() == BODY.len() && body != BODY));
    rig.set("shorten method=GET times=1");
    let part = rig.store.get_range(&ObjectKey::new("one".into()), 0..20).await;
    assert!(matches!(part, Err(GetError::Failed(Failure::Retry(_)))), "{part:?}");
    assert_eq!(rig.get("one").await, Ok(BODY));
}

#[tokio::test]
async fn a_listing_forgets_and_a_header_is_lost() {
    let Some(rig) = rig(1).await else { return };
    rig.put("a/1").await.unwrap();
    rig.put("a/2").await.unwrap();
    rig.set("forget-listed on=list-type times=1");
    assert_eq!(rig.store.list("a", None).await.unwrap().objects.len(), 1);
    assert_eq!(rig.store.list("a", None).await.unwrap().objects.len(), 2);
    // What was signed cannot be taken from a server that checks signatures.
    rig.set("strip-request:if-none-match times=1");
    assert!(matches!(rig.put("a/3").await, Err(PutError::Failed(_))));
    assert_eq!(rig.get("a/3").await, Err(GetError::NotFound));
}

#[tokio::test]
async fn the_same_seed_befalls_the_same_requests() {
    let mut traces = Vec::new();
    for seed in [7, 7, 8] {
        let Some(rig) = rig(seed).await else { return };
        rig.set("status:503:SlowDown chance=50");
        for _ in 0..40 {
            let _ = rig.get("one").await;
        }
        traces.push(rig.proxy.seen().iter().map(|seen| seen.fault.is_some()).collect::<Vec<_>>());
    }
    assert_eq!(traces[0], traces[1]);
    assert_ne!(traces[0], traces[2]);
}

#[tokio::test]
async fn what_is_held_goes_on_when_the_rules_are_replaced_with_or_without_its_client() {
    let Some(rig) = rig(1).await else { return };
    let key = ObjectKey::new("held".into());
    rig.set("hold method=PUT times=1");
    // The client gives up; the request is still on its way.
    assert!(matches!(rig.put("held").await, Err(PutError::Failed(Failure::Retry(_)))));
    assert_eq!(rig.get("held").await, Err(GetError::NotFound));
    rig.proxy.set_rules([]);
    let mut found = rig.get("held").await;
    while found == Err(GetError::NotFound) {
        found = rig.get("held").await;
    }
    assert_eq!(found, Ok(BODY));
    rig.store.delete(&key).await.unwrap();
    rig.set("hold-after method=PUT times=1");
    let (put, ()) = tokio::join!(rig.put("held"), async {
        while rig.get("held").await != Ok(BODY) {}
        rig.proxy.set_rules([]);
    });
    assert_eq!(put, Ok(()));
}
