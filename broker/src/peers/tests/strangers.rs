//! Bytes that no node of this cluster sends: each ends its connection, is counted, and disturbs nobody else.

use futures_util::FutureExt as _;

use super::{
    frame::{HEADER_BYTES, check, put},
    limits::GREETING_BYTES_MAX,
    *,
};

async fn member() -> Node {
    Node::member(config(1, reserve(), &[]), &[]).await
}

/// Makes a header's own check right again, whatever it says.
fn seal_header(frame: &mut [u8]) {
    frame[3] = check([frame[0], frame[1], frame[2]], frame[4], frame[5]);
}

#[tokio::test]
async fn garbage_is_closed_and_counted() {
    let mut node = member().await;
    let mut flipped = encode(Kind::Hello, &hello(2, 1, Purpose::Messages).encode()).unwrap();
    flipped[HEADER_BYTES + 7] ^= 1;
    // What a message may be, and no greeting.
    let mut oversize = encode(Kind::Message, &[0; GREETING_BYTES_MAX + 1]).unwrap();
    oversize[5] = Kind::Hello as u8;
    let mut header = oversize.clone();
    seal_header(&mut oversize);
    header[0] ^= 1;
    let mut version = encode(Kind::Hello, b"").unwrap();
    version[4] = 9;
    let mut kind = encode(Kind::Hello, b"").unwrap();
    kind[5] = 99;
    seal_header(&mut kind);
    let pulse = encode(Kind::Pulse, &pulse(2, 1).encode()).unwrap();
    let cases: [(&[u8], &str); 8] = [
        (b"GET / HTTP/1.1\r\n\r\n", "unknown frame version"),
        (&flipped, "frame checksum does not hold"),
        (&oversize, "frame too large"),
        (&header, "frame header does not hold"),
        (&version, "unknown frame version"),
        (&kind, "unknown kind of frame"),
        (&pulse, "unexpected kind of frame"),
        (&encode(Kind::Hello, b"\x01\0\0\0\x01").unwrap(), "malformed frame"),
    ];
    for (bytes, what) in cases {
        let before = node.refused(what);
        let mut raw = Raw::connect(&node).await;
        raw.write(bytes).await;
        raw.closed().await;
        until(|| node.refused(what) == before + 1).await;
    }
    assert_eq!(node.rest(), []);
}

#[tokio::test]
async fn a_stranger_that_says_nothing_is_closed_in_time() {
    let mut config = config(1, reserve(), &[]);
    config.limits.greet_max = Duration::from_millis(50);
    let node = Node::member(config, &[]).await;
    let mut silent = Raw::connect(&node).await;
    let mut partial = Raw::connect(&node).await;
    partial.write(&encode(Kind::Hello, &hello(2, 1, Purpose::Messages).encode()).unwrap()[..20]).await;
    silent.closed().await;
    partial.closed().await;
    until(|| node.refused("no greeting in time") == 2).await;
}

#[tokio::test]
async fn a_connection_that_brings_nothing_any_more_is_closed() {
    let mut config = config(1, reserve(), &[]);
    config.limits.silent_max = Duration::from_millis(100);
    config.limits.inbound_silent_max = Duration::from_millis(100);
    let node = Node::member(config, &[]).await;
    for purpose in [Purpose::Messages, Purpose::Calls] {
        Raw::welcomed(&node, 2, purpose).await.closed().await;
    }
    assert_eq!(node.peers.refusals(), BTreeMap::new(), "it may have been the network");
}

#[tokio::test]
async fn what_a_connection_may_not_carry_ends_it_and_reaches_nobody() {
    let mut node = member().await;
    let message = |cluster, from, to| (Kind::Message, envelope(cluster, from, to, 1, 10).encode());
    let cases = [
        (message(OTHER_CLUSTER, 2, 1), "message of another cluster"),
        (message(CLUSTER, 3, 1), "message of another node"),
        (message(CLUSTER, 2, 3), "message to another node"),
        ((Kind::Pulse, pulse(3, 1).encode()), "message of another node"),
        (
            (Kind::Pulse, Pulse { cluster: OTHER_CLUSTER, ..pulse(2, 1) }.encode()),
            "message of another cluster",
        ),
        ((Kind::Message, Bytes::from_static(b"no envelope")), "malformed frame"),
        ((Kind::Pulse, Bytes::from_static(b"no pulse")), "malformed frame"),
        ((Kind::Call, Bytes::from_static(b"no call here")), "unexpected kind of frame"),
        ((Kind::Hello, hello(2, 1, Purpose::Messages).encode()), "unexpected kind of frame"),
    ];
    for ((kind, body), what) in cases {
        let before = node.refused(what);
        let mut raw = Raw::welcomed(&node, 2, Purpose::Messages).await;
        raw.say(kind, &body).await;
        raw.closed().await;
        until(|| node.refused(what) == before + 1).await;
    }
    assert_eq!(node.rest(), []);
    let mut raw = Raw::welcomed(&node, 2, Purpose::Messages).await;
    raw.say(Kind::Message, &envelope(CLUSTER, 2, 1, 1, 10).encode()).await;
    assert_eq!(node.next().await, Heard::Message(2, 1, 10));
}

#[tokio::test]
async fn a_frame_that_is_cut_anywhere_reaches_nobody() {
    let mut node = member().await;
    let frame = encode(Kind::Message, &envelope(CLUSTER, 2, 1, 1, 10).encode()).unwrap();
    for cut in 1..frame.len() {
        let mut raw = Raw::welcomed(&node, 2, Purpose::Messages).await;
        raw.write(&frame[..cut]).await;
        raw.socket.shutdown().await.unwrap();
        raw.closed().await;
    }
    assert_eq!(node.rest(), []);
}

#[tokio::test]
async fn greetings_that_do_not_fit_are_refused_with_the_reason() {
    let node = member().await;
    let fits = hello(2, 1, Purpose::Messages);
    let cases = [
        (Hello { cluster: OTHER_CLUSTER, ..fits }, Refusal::OtherCluster(CLUSTER)),
        (Hello { to: Some(id(3)), ..fits }, Refusal::OtherNode(id(1))),
        (Hello { from: id(1), ..fits }, Refusal::SameNode),
        (Hello { from: id(1), process: 100, ..fits }, Refusal::SameNode),
        (Hello { from: id(1), purpose: Purpose::Name, ..fits }, Refusal::SameNode),
        (Hello { spoken: 0, ..fits }, Refusal::Version(SPOKEN)),
    ];
    for (hello, refusal) in cases {
        let before = node.refused(refusal.name());
        let mut raw = Raw::connect(&node).await;
        raw.say(Kind::Hello, &hello.encode()).await;
        assert_eq!(Refusal::decode(raw.hear(&[Kind::Refused]).await.body), Ok(refusal));
        raw.closed().await;
        until(|| node.refused(refusal.name()) == before + 1).await;
    }
    let mut raw = Raw::connect(&node).await;
    raw.say(Kind::Hello, &Hello { spoken: 200, ..fits }.encode()).await;
    let welcome = Welcome::decode(raw.hear(&[Kind::Welcome]).await.body).unwrap();
    assert_eq!(welcome, Welcome { spoken: SPOKEN, node: id(1), cluster: CLUSTER, process: 100 });
}

#[tokio::test]
async fn a_newer_connection_of_a_node_ends_its_older_one() {
    let mut node = member().await;
    let mut older = Raw::welcomed(&node, 2, Purpose::Messages).await;
    let mut newer = Raw::welcomed(&node, 2, Purpose::Messages).await;
    older.closed().await;
    newer.say(Kind::Pulse, &pulse(2, 5).encode()).await;
    assert_eq!(node.next().await, Heard::Pulse(2, 5));
    newer.hear(&[Kind::Alive]).await;
}

#[tokio::test]
async fn a_flipped_bit_anywhere_and_a_length_beyond_the_bound_are_refused() {
    let kinds = [Kind::Pulse, Kind::Message, Kind::Ping];
    let whole = encode(Kind::Pulse, &pulse(2, 1).encode()).unwrap();
    for bit in 0..whole.len() * 8 {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let mut reader = FrameReader::default();
        assert!(reader.whole(&mut &bytes[..], &kinds).await.is_err(), "bit {bit}");
    }
    // The header alone tells: nothing is waited for that a changed length promises.
    for bit in 0..6 * 8 {
        let mut bytes = whole[..HEADER_BYTES].to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let (mut near, mut far) = tokio::io::duplex(64);
        far.write_all(&bytes).await.unwrap();
        let mut reader = FrameReader::default();
        assert_eq!(reader.next(&mut near, &kinds).await.unwrap().map(|frame| frame.kind), None);
        let told = reader.next(&mut near, &kinds).now_or_never();
        assert!(told.is_some_and(|told| told.is_err()), "bit {bit} is waited for");
    }
    let mut buffer = BytesMut::from(&b"before"[..]);
    assert!(put(&mut buffer, Kind::Ping, |buffer| buffer.put_u8(1)).is_err());
    assert_eq!(buffer, b"before"[..], "it is taken back");
    // Frames that came together, cut anywhere, are read one by one.
    let both = [&whole[..], &encode(Kind::Ping, b"").unwrap()].concat();
    for cut in 0..both.len() {
        let (mut head, mut tail) = both.split_at(cut);
        let (mut reader, mut read) = (FrameReader::default(), VecDeque::new());
        while read.len() < 2 {
            let input = if head.is_empty() { &mut tail } else { &mut head };
            read.extend(reader.next(input, &kinds).await.unwrap());
        }
        assert_eq!((read[0].kind, read[1].kind), (Kind::Pulse, Kind::Ping));
        assert_eq!(read[0].body, whole[HEADER_BYTES..]);
    }
}
