//! The S3 client of room `objects` against real servers. Where a server is not installed its tests are skipped,
//! but not in CI.

use bytes::Bytes;
use varve_common::{Digest, ObjectKey};
use varve_localstack::{Kind, Lifecycle, Server, Setup, Versioning, table};
use varve_objects::{
    Failure, GetError, HeadError, PutError, S3, Store as _,
    admin::{self, Admin},
    conformance,
    probe::{Report, Warning, probe},
    s3::{Addressing, Credentials, Options},
};

async fn server_with_bucket(kind: Kind) -> Option<(Server, S3)> {
    let server = Server::start_or_skip(kind).await?;
    server.create_bucket("varve").await.unwrap();
    let store = S3::new(server.options("varve")).unwrap();
    Some((server, store))
}

/// The server does what docs/s3-servers.md says of it.
async fn is_as_documented(kind: Kind) {
    let Some(server) = Server::start_or_skip(kind).await else { return };
    let column = table::examine_server(kind, &server).await.unwrap();
    assert_eq!(
        table::stale(PAGE, kind.name(), &column),
        Vec::<String>::new(),
        "run `varve-localstack table`"
    );
    server.stop();
}

const PAGE: &str = include_str!("../../docs/s3-servers.md");

#[tokio::test]
async fn minio_is_as_documented() {
    is_as_documented(Kind::Minio).await;
}

#[tokio::test]
async fn moto_is_as_documented() {
    is_as_documented(Kind::Moto).await;
}

#[tokio::test]
async fn localstack_is_as_documented() {
    is_as_documented(Kind::LocalStack).await;
}

#[tokio::test]
async fn versitygw_is_as_documented() {
    is_as_documented(Kind::Versitygw).await;
}

#[tokio::test]
async fn s3mock_is_as_documented() {
    is_as_documented(Kind::S3Mock).await;
}

#[tokio::test]
async fn the_embedded_directory_is_as_documented() {
    let column = table::examine_directory().await.unwrap();
    assert_eq!(table::stale(PAGE, table::DIRECTORY, &column), Vec::<String>::new());
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
    let credentials = Credentials::Static {
        access_key: server.access_key.clone(),
        secret_key: "wrong".into(),
        session_token: None,
    };
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

#[tokio::test]
async fn a_bucket_in_front_of_the_host_serves_as_one_in_the_path() {
    let setup = Setup { domain: Some("s3.localhost".into()), ..Setup::default() };
    if !Kind::Minio.is_installed() {
        assert!(Server::start_or_skip(Kind::Minio).await.is_none());
        return;
    }
    let server = Server::start_with(Kind::Minio, setup).await.unwrap();
    server.create_bucket("varve").await.unwrap();
    let by_host = Options { addressing: Addressing::VirtualHost, ..server.options("varve") };
    let store = S3::new(by_host.clone()).unwrap();
    conformance::run(&store, "by/host").await.unwrap();
    let key = ObjectKey::new("a b/c".into());
    store.put_new(&key, Bytes::from("one").into(), Digest::of(b"one")).await.unwrap();
    let endpoint = Some(format!("http://{}", server.address()));
    let by_path = S3::new(Options { endpoint, ..server.options("varve") }).unwrap();
    assert_eq!(by_path.get(&key).await, Ok("one".into()));
    let other = Admin::new(Options { bucket: "second".into(), ..by_host }).unwrap();
    other.create_bucket().await.unwrap();
    assert_eq!(other.versioning().await, Ok(admin::Versioning::Off));
}

#[tokio::test]
async fn settings_made_by_the_sdk_are_read_by_our_own_requests() {
    for kind in [Kind::Minio, Kind::LocalStack, Kind::Moto] {
        let Some((server, _store)) = server_with_bucket(kind).await else { continue };
        let (bucket, admin) = (server.bucket("varve"), Admin::new(server.options("varve")).unwrap());
        assert_eq!(admin.versioning().await, Ok(admin::Versioning::Off), "{kind}");
        assert_eq!(admin.lifecycle().await, Ok(Vec::new()), "{kind}");
        assert_eq!(admin.object_lock().await, Ok(false), "{kind}");
        bucket.set_versioning(Versioning::Enabled).await.unwrap();
        let lifecycle =
            Lifecycle { expire_days: Some(3), expire_old_versions_days: Some(1), ..Lifecycle::default() };
        bucket.set_lifecycle("some/", lifecycle).await.unwrap();
        bucket.set_encryption().await.unwrap();
        assert_eq!(admin.versioning().await, Ok(admin::Versioning::Enabled), "{kind}");
        let rules = admin.lifecycle().await.unwrap();
        let found: Vec<_> = rules
            .iter()
            .map(|rule| (rule.prefix.as_str(), rule.expires, rule.expires_old_versions))
            .collect();
        assert_eq!(found, [("some/", true, true)], "{kind}");
        assert_eq!(admin.encryption().await, Ok(Some("AES256".into())), "{kind}");
        bucket.set_versioning(Versioning::Suspended).await.unwrap();
        assert_eq!(admin.versioning().await, Ok(admin::Versioning::Suspended), "{kind}");
    }
}
