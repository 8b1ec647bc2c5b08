use super::*;
use crate::config::{Config, Sources};

/// Much of the file that Kafka ships for a combined node, and what people add.
const SERVER: &str = r"
# comment
! another
process.roles=broker,controller
node.id=3
controller.quorum.voters=1@a:9093,2@b:9093,\
    3@c:9093
listeners=PLAINTEXT://:9092,CONTROLLER://:9093
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
advertised.listeners = PLAINTEXT://c.example:9092
num.network.threads: 3
log.dirs /var/lib/kafka
num.partitions=1
num.partitions=6
log.retention.hours=24
log.retention.minutes=30
log.segment.bytes=1073741824
log.cleanup.policy=compact,delete
log.cleaner.enable=true
min.insync.replicas=2
unclean.leader.election.enable=true
ssl.keystore.password=geheim
my.own=1
log.roll.ms=soon
";

fn imported() -> Vec<Imported> {
    import(SERVER)
}

fn fate(name: &str) -> Fate {
    imported().into_iter().rev().find(|one| one.property == name).unwrap().fate
}

fn key(name: &'static str, value: &str) -> Fate {
    Fate::Key { name, value: value.to_owned(), note: None }
}

#[test]
fn properties_become_keys_or_are_told_to_have_none() {
    assert_eq!(fate("node.id"), key("node.id", "3"));
    assert_eq!(fate("controller.quorum.voters"), key("seeds", "a:9093,b:9093,c:9093"));
    assert!(
        matches!(fate("listeners"), Fate::Key { name: "listen", value, note: Some(_) } if value == "0.0.0.0:9092")
    );
    assert_eq!(fate("advertised.listeners"), key("advertise", "c.example:9092"));
    assert_eq!(fate("log.dirs"), key("data.dir", "/var/lib/kafka"));
    assert_eq!(fate("num.partitions"), key("num.partitions", "6"));
    assert_eq!(fate("log.retention.minutes"), key("log.retention.ms", "1800000"));
    assert!(matches!(fate("log.retention.hours"), Fate::Needless(_)), "minutes win");
    assert_eq!(fate("log.cleanup.policy"), key("log.cleanup.policy", "compact,delete"));
    assert!(matches!(fate("num.network.threads"), Fate::Needless(_)));
    assert!(matches!(fate("log.cleaner.enable"), Fate::Missing(_)));
    assert!(matches!(fate("my.own"), Fate::Missing(_)));
    for refused in ["unclean.leader.election.enable", "log.roll.ms"] {
        assert!(matches!(fate(refused), Fate::Refused(_)), "{refused}");
    }
    let secret = imported().into_iter().find(|one| one.property.ends_with("password")).unwrap();
    assert_eq!(secret.value, super::super::REDACTED);
    let lines: Vec<usize> = imported().iter().map(|one| one.line).collect();
    assert!(lines.is_sorted() && lines[0] == 4, "{lines:?}");
}

#[test]
fn what_is_written_is_a_configuration() {
    let written: toml::Table = file(&imported()).parse().unwrap();
    assert_eq!(written["log"]["retention"]["ms"].as_str(), Some("1800000"));
    let said = imported().into_iter().filter_map(|one| match one.fate {
        Fate::Key { name, value, .. } => Some((name.to_owned(), value)),
        _ => None,
    });
    let open =
        [("insecure".to_owned(), "true".to_owned()), ("peer.advertise".to_owned(), "c:9093".to_owned())];
    let flags = said.chain(open).collect();
    Config::load(&Sources { flags, ..Sources::default() }).unwrap();
}

#[test]
fn listeners_that_need_proof_and_several_directories_are_refused() {
    let only = |text: &str| import(text).pop().unwrap().fate;
    for text in
        ["listeners=SSL://:9092", "log.dirs=/a,/b", "listeners=PLAINTEXT://some-host:9092", "listeners=9092"]
    {
        assert!(matches!(only(text), Fate::Refused(_)), "{text}");
    }
    let two = only(
        "listeners=IN://127.0.0.1:9092,OUT://127.0.0.1:9094\nlistener.security.protocol.map=IN:PLAINTEXT,OUT:PLAINTEXT\nlisteners=IN://127.0.0.1:9092,OUT://127.0.0.1:9094",
    );
    assert_eq!(two, key("listen", "in=127.0.0.1:9092,out=127.0.0.1:9094"));
}
