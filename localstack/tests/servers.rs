//! The S3 client of room `objects` against real servers. Where a server is not installed its tests are skipped,
//! but not in CI.

use bytes::Bytes;
use varve_common::{Digest, ObjectKey};
use varve_localstack::{Kind, Server};
use varve_objects::{
    Failure, GetError, HeadError, PutError, S3, Store as _, conformance,
    probe::{Report, Warning, probe},
    s3::{Credentials, Options},
};

async fn server_with_bucket(kind: Kind) -> Option<(Server, S3)> {
    let server = Server::start_or_skip(kind).await?;
    server.create_bucket("varve").await.unwrap();
    let store = S3::new(server.options("varve")).unwrap();
    Some((server, store))
}

async fn conforms(kind: Kind) {
    let Some((server, store)) = server_with_bucket(kind).await else { return };
    conformance::run(&store, "suite/of all").await.unwrap();
    server.stop();
}

#[tokio::test]
async fn minio_conforms() {
    conforms(Kind::Minio).await;
}

#[tokio::test]
async fn moto_conforms() {
    conforms(Kind::Moto).await;
}

#[tokio::test]
async fn localstack_conforms() {
    conforms(Kind::LocalStack).await;
}

#[tokio::test]
async fn versitygw_conforms() {
    conforms(Kind::Versitygw).await;
}

#[tokio::test]
async fn minio_passes_the_probe_and_is_left_clean() {
    let Some((_server, store)) = server_with_bucket(Kind::Minio).await else { return };
    assert_eq!(probe(&store, "prefix", 7).await, Ok(Report::default()));
    assert!(store.list("", None).await.unwrap().objects.is_empty());
}

#[tokio::test]
async fn moto_is_to_be_read_back() {
    let Some((_server, store)) = server_with_bucket(Kind::Moto).await else { return };
    assert_eq!(probe(&store, "prefix", 7).await, Ok(Report { warnings: vec![Warning::ReadBackEveryPut] }));
}

#[tokio::test]
async fn listings_go_on_over_pages() {
    let Some((_server, store)) = server_with_bucket(Kind::Minio).await else { return };
    for number in 0..1003 {
        let key = ObjectKey::new(format!("many/{number:05}"));
        store.put_new(&key, Bytes::new().into(), Digest::of(b"")).await.unwrap();
    }
    let first = store.list("many", None).await.unwrap();
    assert_eq!((first.objects.len(), first.more), (1000, true));
    let rest = store.list("many", Some(&first.objects[999].key)).await.unwrap();
    assert_eq!((rest.objects.len(), rest.more), (3, false));
}

#[tokio::test]
async fn fault_52_an_outage_is_to_be_retried_and_objects_outlive_it() {
    let Some((mut server, store)) = server_with_bucket(Kind::Minio).await else { return };
    let key = ObjectKey::new("a/b".into());
    store.put_new(&key, Bytes::from("kept").into(), Digest::of(b"kept")).await.unwrap();
    server.stop_keeping_data();
    assert!(matches!(store.get(&key).await, Err(GetError::Failed(Failure::Retry(_)))));
    assert!(matches!(store.list("a", None).await, Err(Failure::Retry(_))));
    server.start_again().await.unwrap();
    assert_eq!(store.get(&key).await, Ok("kept".into()));
}

#[tokio::test]
async fn fault_59_a_wrong_secret_is_denied() {
    let Some((server, _)) = server_with_bucket(Kind::Minio).await else { return };
    let credentials =
        Credentials::Static { access_key: server.access_key.clone(), secret_key: "wrong".into() };
    let store = S3::new(Options { credentials, ..server.options("varve") }).unwrap();
    let key = ObjectKey::new("a".into());
    let put = store.put_new(&key, Bytes::new().into(), Digest::of(b"")).await;
    assert!(matches!(put, Err(PutError::Failed(Failure::Denied(_)))), "{put:?}");
    assert!(matches!(store.list("", None).await, Err(Failure::Denied(_))));
    assert!(matches!(store.head(&key).await, Err(HeadError::Failed(Failure::Denied(_)))));
}

#[tokio::test]
async fn a_missing_bucket_is_never_an_empty_one() {
    for kind in [Kind::Minio, Kind::Moto] {
        let Some((server, _)) = server_with_bucket(kind).await else { continue };
        let store = S3::new(server.options("elsewhere")).unwrap();
        let key = ObjectKey::new("a".into());
        assert!(matches!(store.get(&key).await, Err(GetError::Failed(Failure::Invalid(_)))));
        assert!(matches!(store.list("", None).await, Err(Failure::Invalid(_))));
        let put = store.put_new(&key, Bytes::new().into(), Digest::of(b"")).await;
        assert!(matches!(put, Err(PutError::Failed(Failure::Invalid(_)))), "{put:?}");
    }
}

#[tokio::test]
async fn a_body_that_its_checksum_does_not_match_is_refused_and_not_stored() {
    let Some((_server, store)) = server_with_bucket(Kind::Minio).await else { return };
    let key = ObjectKey::new("a".into());
    let put = store.put_new(&key, Bytes::from("bytes").into(), Digest::of(b"other")).await;
    assert!(matches!(put, Err(PutError::Failed(Failure::Corrupt(_)))), "{put:?}");
    assert_eq!(store.head(&key).await, Err(HeadError::NotFound));
}
