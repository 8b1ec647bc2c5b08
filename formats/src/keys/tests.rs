use proptest::prelude::*;

use super::*;
use crate::manifest::tests_support::{entry, node};

fn keys() -> Keys {
    Prefix::new("/team/varve/").cluster(ClusterId::from_random(9))
}

fn samples() -> Vec<(Key, &'static str)> {
    let at = PartitionKeys {
        topic_id: TopicId::from_random(77),
        partition: PartitionIndex(4),
        incarnation: Incarnation(2),
    };
    let checkpoint = CheckpointName { applied_index: LogIndex(55), term: Term(7), uid: 9 };
    let segment = SegmentName { base: Offset(100), last: Offset(199), term: Term(0x1_0000_0000), uid: 0xabc };
    let node = NodeName { level: 1, base: Offset(0), last: Offset(99), uid: 3 };
    let archive = ArchiveName {
        topic: "../Bestellungen ü".into(),
        partition: PartitionIndex(4),
        date: "2026-11-21".into(),
        first: Offset(1),
        last: Offset(2),
        topic_id: TopicId::from_random(77),
    };
    vec![
        (Key::Claim(Incarnation(2)), "team/varve/claim/0000000002"),
        (Key::Complete(Incarnation(2)), "team/varve/claim/0000000002.complete"),
        (
            Key::MetadataCheckpoint(Incarnation(2), checkpoint),
            "team/varve/{c}/meta/i0000000002/00000000000000000055-00000007-0000000000000009.ckpt",
        ),
        (
            Key::Segment(at, segment),
            "team/varve/{c}/p/{hh}/{t}/00004/i0000000002/seg/\
             00000000000000000100-00000000000000000199-100000000-0000000000000abc.seg",
        ),
        (
            Key::MergedSegment(at, segment),
            "team/varve/{c}/p/{hh}/{t}/00004/i0000000002/mseg/\
             00000000000000000100-00000000000000000199-100000000-0000000000000abc.seg",
        ),
        (
            Key::Node(at, node),
            "team/varve/{c}/p/{hh}/{t}/00004/i0000000002/node/\
             1-00000000000000000000-00000000000000000099-0000000000000003.mn",
        ),
        (
            Key::Checkpoint(at, checkpoint),
            "team/varve/{c}/p/{hh}/{t}/00004/i0000000002/ckpt/00000000000000000055-00000007-0000000000000009.ckpt",
        ),
        (
            Key::Archive(archive),
            "team/varve/{c}/archive/v1/topic=%2E%2E%2FBestellungen%20%C3%BC/partition=4/date=2026-11-21/\
             00000000000000000001-00000000000000000002-{t}.parquet",
        ),
        (Key::ArchiveMeta("watermarks/5".into()), "team/varve/{c}/archive-meta/v1/watermarks/5"),
    ]
}

#[test]
fn every_key_is_as_tiering_7_says_and_reads_back() {
    let topic = TopicId::from_random(77);
    let hash = format!("{:02x}", hash_byte(topic, PartitionIndex(4)));
    for (key, expected) in samples() {
        let expected = expected
            .replace("{c}", &keys().cluster().to_string())
            .replace("{t}", &topic.to_string())
            .replace("{hh}", &hash);
        let built = keys().build(&key);
        assert_eq!(built.as_str(), expected);
        assert_eq!(keys().parse(&built), Ok(key));
    }
}

#[test]
fn an_empty_prefix_leaves_no_slash() {
    let key = Prefix::new("").claim(Incarnation(1));
    assert_eq!(key.as_str(), "claim/0000000001");
    assert_eq!(Prefix::new("").parse_claim(&key), Ok(Key::Claim(Incarnation(1))));
}

#[test]
fn keys_of_another_cluster_or_prefix_are_foreign() {
    let (key, _) = &samples()[3];
    for other in
        [Prefix::new("team").cluster(keys().cluster()), Prefix::new("team/varve").cluster(ClusterId([1; 16]))]
    {
        assert!(matches!(keys().parse(&other.build(key)), Err(ParseKeyError::Foreign { .. })));
    }
}

#[test]
fn an_object_has_exactly_one_name() {
    let root = keys().root();
    for below in [
        "meta/i2/00000000000000000055-00000007-0000000000000009.ckpt",
        "meta/i0000000002/00000000000000000055-0000000G-0000000000000009.ckpt",
        "meta/i0000000002/+0000000000000000055-00000007-0000000000000009.ckpt",
        "meta/i0000000002/00000000000000000055-00000007-0000000000000009.ckpt.tmp",
        "meta/i0000000002/00000000000000000055-00000007-000000000000000A.ckpt",
        "archive/v1/readme.txt",
        "other/1",
        "",
    ] {
        let key = ObjectKey::new(format!("{root}/{below}"));
        assert!(matches!(keys().parse(&key), Err(ParseKeyError::Unknown { .. })), "{below}");
    }
}

#[test]
fn entries_and_nodes_have_the_keys_of_their_incarnation() {
    let (topic, partition) = (TopicId::from_random(77), PartitionIndex(4));
    let mut segment = entry(100, 199);
    segment.incarnation = 3;
    let key = keys().entry(topic, partition, &segment).unwrap();
    let Ok(Key::Segment(at, name)) = keys().parse(&key) else { panic!("{key} is not a segment") };
    assert_eq!((at.incarnation, name.uid, name.last), (Incarnation(3), segment.uid, Offset(199)));
    segment.kind = EntryKind::Pack;
    assert_eq!(keys().entry(topic, partition, &segment), None);
    let key = keys().node(topic, partition, &node(0, 5, 9));
    assert!(matches!(keys().parse(&key), Ok(Key::Node(..))));
}

proptest! {
    #[test]
    fn names_sort_as_their_numbers_do(a in any::<(u64, u32, u64)>(), b in any::<(u64, u32, u64)>()) {
        let name = |(index, term, uid): (u64, u32, u64)| {
            CheckpointName { applied_index: LogIndex(index), term: Term(u64::from(term)), uid }
        };
        prop_assert_eq!(name(a).cmp(&name(b)), name(a).to_string().cmp(&name(b).to_string()));
        prop_assert_eq!(name(a).to_string().parse(), Ok(name(a)));
    }

    #[test]
    fn arbitrary_keys_never_panic(text in ".{0,80}") {
        let key = ObjectKey::new(format!("{}/{text}", keys().root()));
        if let Ok(parsed) = keys().parse(&key) {
            prop_assert_eq!(keys().build(&parsed), key);
        }
    }
}
