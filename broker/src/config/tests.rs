use std::io::Write as _;

use super::*;

fn sources(flags: &[(&str, &str)]) -> Sources {
    let flags = flags.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
    Sources { flags, ..Sources::default() }
}

fn refused(flags: &[(&str, &str)]) -> String {
    Config::load(&sources(flags)).expect_err("must be refused").to_string()
}

#[test]
fn nothing_has_to_be_said() {
    let config = Config::load(&Sources::default()).unwrap();
    assert_eq!(config.listeners[0].address, SocketAddr::from(([127, 0, 0, 1], 9092)));
    assert_eq!(config.object_store, ObjectStore::Embedded);
    assert_eq!(config.wal_bytes_max(1 << 40), 8 << 30);
    assert_eq!(config.wal_bytes_max(20 << 30), (20 << 30) / 10);
    assert_eq!(config.hot_bytes_max(20 << 30), 10 << 30);
}

#[test]
fn budgets_follow_the_memory_and_what_is_said_wins() {
    let with =
        |flags: &[(&str, &str)], memory| Config::load(&Sources { memory, ..sources(flags) }).unwrap().memory;
    assert_eq!(with(&[], None), Budgets::within(None));
    let small = Some(256 << 20);
    assert_eq!(with(&[], small), Budgets::within(small));
    let said = with(&[("varve.requests.bytes.max", "300MiB"), ("varve.cold.cache.bytes", "10%")], small);
    let chunks = (256 << 20) / 100 * 10;
    assert_eq!(said, Budgets { requests: 300 << 20, chunks, ..Budgets::within(small) });
    assert_eq!(with(&[("varve.memory.bytes.max", "1GiB")], small), Budgets::within(Some(1 << 30)));
    assert_eq!(with(&[("varve.memory.bytes.max", "1GiB")], None), Budgets::within(Some(1 << 30)));
    let half = with(&[("varve.memory.bytes.max", "50%")], small);
    assert_eq!(half.requests, (256 << 20) / 100 * 50 / 8);
    assert_eq!(with(&[("varve.cold.cache.bytes", "10%")], None), Budgets::within(None));
}

#[test]
fn flags_win_over_the_environment_which_wins_over_the_file() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(
        file,
        "num.partitions = 3\n[node]\nid = 7\n[varve.wal]\nbytes.max = '1GiB'\nfile.bytes = '8MiB'"
    )
    .unwrap();
    let mut sources = sources(&[("num.partitions", "5")]);
    sources.file = Some(file.path().to_owned());
    sources.environment.insert("VARVE_NUM_PARTITIONS".into(), "4".into());
    sources.environment.insert("VARVE_WAL_FILE_BYTES".into(), "16MiB".into());
    let config = Config::load(&sources).unwrap();
    assert_eq!((config.topics.partitions, config.wal_file_bytes, config.node.get()), (5, 16 << 20, 7));
    assert_eq!(config.wal_bytes, Share::Bytes(1 << 30));
    assert_eq!(config.layers.get("num.partitions").origin.to_string(), "--set num.partitions");
    assert_eq!(
        config.layers.get("varve.wal.file.bytes").origin.to_string(),
        "environment VARVE_WAL_FILE_BYTES"
    );
    assert_eq!(config.layers.get("node.id").origin, Origin::File(file.path().to_owned()));
}

#[test]
fn a_variable_may_name_a_file_that_holds_the_value() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "eu-central-1").unwrap();
    let mut sources = Sources::default();
    sources.environment.insert("VARVE_S3_REGION_FILE".into(), file.path().display().to_string());
    sources.environment.insert("AWS_REGION".into(), "us-west-2".into());
    assert_eq!(Config::load(&sources).unwrap().s3.region, "eu-central-1");
}

#[test]
fn the_standard_aws_variables_fill_what_nobody_configured() {
    let mut sources = Sources::default();
    sources.environment.insert("AWS_DEFAULT_REGION".into(), "us-west-1".into());
    sources.environment.insert("AWS_REGION".into(), "us-west-2".into());
    sources.environment.insert("AWS_ENDPOINT_URL_S3".into(), "http://127.0.0.1:9000".into());
    let s3 = Config::load(&sources).unwrap().s3;
    assert_eq!(
        (s3.region.as_str(), s3.endpoint.as_deref(), s3.path_style),
        ("us-west-2", Some("http://127.0.0.1:9000"), true)
    );
}

#[test]
fn a_bucket_stands_in_front_of_amazons_host_unless_its_name_has_dots() {
    let path_style = |pairs: &[(&str, &str)]| {
        let flags = pairs.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned())).collect();
        let sources = Sources { flags, ..Sources::default() };
        Config::load(&sources).unwrap().s3.path_style
    };
    assert!(!path_style(&[("object.store", "s3://plain/x")]));
    assert!(path_style(&[("object.store", "s3://with.dots/x")]));
    assert!(path_style(&[("object.store", "s3://plain"), ("s3.endpoint", "http://h:1")]));
    assert!(!path_style(&[("s3.path.style", "false"), ("s3.endpoint", "http://h:1")]));
}

#[test]
fn an_unknown_key_is_named_wherever_it_stands() {
    assert_eq!(refused(&[("nmu.partitions", "3")]), "unknown key nmu.partitions (--set nmu.partitions)");
    let mut sources = Sources::default();
    sources.environment.insert("VARVE_NOPE".into(), "1".into());
    assert_eq!(
        Config::load(&sources).unwrap_err().to_string(),
        "unknown key VARVE_NOPE (environment VARVE_NOPE)"
    );
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "[varve]\nwal.bites = 1").unwrap();
    let error = Config::load(&Sources { file: Some(file.path().into()), ..Sources::default() }).unwrap_err();
    assert!(error.to_string().starts_with("unknown key varve.wal.bites (file "), "{error}");
}

#[test]
fn a_value_that_does_not_fit_says_what_would() {
    let error = refused(&[("varve.wal.file.bytes", "lots")]);
    assert_eq!(
        error,
        "varve.wal.file.bytes: \"lots\" (--set varve.wal.file.bytes): expected bytes, as 1048576 or 1MiB, at least 1048576"
    );
}

#[test]
fn listening_beyond_loopback_needs_insecure() {
    assert!(refused(&[("listen", "0.0.0.0:9092")]).contains("--insecure"));
    assert!(refused(&[("admin.listen", "10.1.2.3:9094")]).contains("--insecure"));
    assert!(Config::load(&sources(&[("listen", "0.0.0.0:9092"), ("insecure", "true")])).is_ok());
}

#[test]
fn an_unspecified_address_is_never_advertised() {
    let error = refused(&[("listen", "0.0.0.0:9092"), ("insecure", "true"), ("advertise", "0.0.0.0:9092")]);
    assert!(error.contains("nobody can connect to 0.0.0.0"), "{error}");
}

#[test]
fn listeners_have_names_and_advertised_addresses_of_their_own() {
    let flags = [("listen", "in=127.0.0.1:9092, out=127.0.0.1:19092"), ("advertise", "out=example.org:443")];
    let listeners = Config::load(&sources(&flags)).unwrap().listeners;
    let advertised: Vec<_> = listeners.iter().map(|l| (l.name.as_str(), l.advertised.clone())).collect();
    assert_eq!(advertised, [("in", None), ("out", Some(("example.org".into(), 443)))]);
    assert!(refused(&[("listen", "127.0.0.1:1,127.0.0.1:2")]).contains("two listeners are called kafka"));
    assert!(refused(&[("advertise", "nope=a:1")]).contains("no listener is called nope"));
}

#[test]
fn object_stores_are_buckets_or_directories() {
    let store =
        |text: &str| Config::load(&sources(&[("object.store", text)])).map(|config| config.object_store);
    let bucket = ObjectStore::S3 { bucket: "b".into(), prefix: "a/c".into() };
    assert_eq!(store("s3://b/a/c/").unwrap(), bucket);
    assert_eq!(store("/mnt/tier").unwrap(), ObjectStore::Directory("/mnt/tier".into()));
    assert!(store("gs://b").is_err());
    assert!(store("s3://").is_err());
}

#[test]
fn kafkas_other_units_are_understood() {
    let config = Config::load(&sources(&[("log.retention.hours", "24")])).unwrap();
    assert_eq!(config.layers.get("log.retention.ms").text, "86400000");
    assert_eq!(config.topic_defaults.get("retention.ms").value, "86400000");
}

#[test]
fn a_limit_below_two_log_files_is_refused() {
    assert!(refused(&[("varve.wal.bytes.max", "1MiB")]).contains("at least 16 MiB"));
}

#[test]
fn seeds_make_a_cluster_that_knows_where_its_nodes_are() {
    let config = Config::load(&sources(&[("seeds", "a:9093, b:9093,a:9093")])).unwrap();
    assert!(config.is_clustered() && !config.has_common_store());
    assert_eq!(config.seeds, Seeds::Named(["a:9093", "b:9093"].map(str::to_owned).into()));
    let service =
        Config::load(&sources(&[("seeds", "dns+srv://_peers._tcp.varve.example?nodes=3")])).unwrap();
    let name = "_peers._tcp.varve.example".to_owned();
    assert_eq!((service.seeds.count(), service.seeds), (3, Seeds::Service { name, nodes: 3 }));
    for bad in
        ["dns+srv://name", "dns+srv://?nodes=3", "dns+srv://name?nodes=0", "dns+srv://name?nodes=3,a:1"]
    {
        assert!(refused(&[("seeds", bad)]).contains("dns+srv://name?nodes=3"), "{bad}");
    }
    let server = |text| Config::load(&sources(&[("dns.server", text)])).unwrap().dns_server;
    assert_eq!(server("127.0.0.1").map(|at| at.port()), Some(53));
    assert_eq!(server("[::1]:5353").map(|at| at.port()), Some(5353));
    assert_eq!(config.peer_address().as_deref(), Some("127.0.0.1:9093"));
    let open = [
        ("seeds", "a:9093"),
        ("insecure", "true"),
        ("listen", "0.0.0.0:9092"),
        ("peer.listen", "0.0.0.0:93"),
    ];
    assert!(refused(&open).contains("where clients reach this one"));
    let named = [&open[..], &[("advertise", "host1")]].concat();
    let config = Config::load(&sources(&named)).unwrap();
    assert_eq!(config.listeners[0].advertised, Some(("host1".to_owned(), 9092)));
    assert_eq!(config.peer_address().as_deref(), Some("host1:93"));
    assert!(refused(&[("seeds", "a")]).contains("expected host:port"));
}

#[test]
fn nodes_prove_who_they_are_by_three_files_or_by_none() {
    let files =
        [("peer.tls.ca", "ca.pem"), ("peer.tls.certificate", "node.pem"), ("peer.tls.key", "node.key")];
    let config = Config::load(&sources(&files)).unwrap();
    let named =
        PeerTls { authority: "ca.pem".into(), certificate: "node.pem".into(), key: "node.key".into() };
    assert_eq!(config.peer_tls, Some(named));
    assert_eq!(Config::load(&sources(&[])).unwrap().peer_tls, None);
    assert!(refused(&files[..2]).contains("all or none"));
    let open = ("peer.listen", "10.0.0.1:9093");
    assert!(refused(&[open]).contains("is reachable from other machines"));
    assert!(Config::load(&sources(&[&files[..], &[open]].concat())).is_ok());
}

#[test]
fn secrets_are_never_shown() {
    let secret = Secret::new("canary".into());
    assert_eq!(format!("{secret:?}"), REDACTED);
    assert_eq!(secret.expose(), "canary");
}
