//! Links that are made, broken and made anew.

use tokio::net::TcpListener;

use super::*;

async fn pair() -> (Node, Node) {
    let (one, two) = (reserve(), reserve());
    let others = [(1, one), (2, two)];
    let (one, two) =
        (Node::member(config(1, one, &[]), &others).await, Node::member(config(2, two, &[]), &others).await);
    one.connected(2).await;
    two.connected(1).await;
    (one, two)
}

#[tokio::test]
async fn messages_and_pulses_arrive_once_and_in_order_both_ways() {
    let (mut one, mut two) = pair().await;
    one.rest();
    two.rest();
    for number in 0..500 {
        one.peers.send(id(2), Outgoing::Message(envelope(CLUSTER, 1, 2, number, 3_000)));
        one.send(2, number);
        two.send(1, number);
    }
    for number in 0..500 {
        assert_eq!(two.next().await, Heard::Message(1, number, 3_000));
        assert_eq!(two.next().await, Heard::Pulse(1, number));
        assert_eq!(one.next().await, Heard::Pulse(2, number));
    }
    let large = 9 << 20;
    one.peers.send(id(2), Outgoing::Message(envelope(CLUSTER, 1, 2, 1, large)));
    assert_eq!(two.next().await, Heard::Message(1, 1, large));
    let (sent, came) = (one.link(2), two.link(1));
    assert_eq!((sent.sent_frames, came.received_frames), (1_001, 1_001));
    assert!(sent.sent_bytes > came.received_bytes && came.received_bytes > large as u64);
    assert_eq!((sent.dropped_frames, sent.queued_frames, sent.queued_bytes), (0, 0, 0));
    assert!(sent.inbound && came.inbound);
}

#[tokio::test]
async fn seeds_say_who_they_are_and_one_of_them_is_the_node_itself() {
    let seeds = [reserve(), reserve(), reserve()];
    let mut nodes = Vec::new();
    for (node, listen) in (1..).zip(seeds) {
        nodes.push(Node::member(config(node, listen, &seeds), &[]).await);
    }
    for (node, to) in [(0, 2), (0, 3), (1, 1), (1, 3), (2, 1), (2, 2)] {
        nodes[node].connected(to).await;
    }
    nodes[0].rest();
    nodes[2].send(1, 77);
    assert_eq!(nodes[0].next().await, Heard::Pulse(3, 77));
    assert!(nodes.iter().all(|node| node.peers.links().len() == 2), "none to itself");
}

#[tokio::test]
async fn before_there_is_a_cluster_only_probes_are_asked_and_answered() {
    let (one, two) = (reserve(), reserve());
    let (one, two) = (Node::start(config(1, one, &[two])).await, Node::start(config(2, two, &[one])).await);
    one.know(&[(2, two.server.address())]);
    let seed = two.server.address().to_string();
    let probe = Probe { process: 5, number: 6 };
    let early = one.peers.probe(&seed, probe).await.unwrap_err();
    assert_eq!(early, CallError::Unreachable("refused: not ready to answer".to_owned()));
    let state = SeedState::Formed { cluster: CLUSTER, members: BTreeMap::new() };
    let answer = Answer { process: 5, number: 6, node: id(2), seeds: [seed.clone()].into(), state };
    *two.handler.answer.lock().unwrap() = Some(answer.clone());
    assert_eq!(one.peers.probe(&seed, probe).await, Ok(answer.clone()));

    let call = one.peers.call(id(2), Bytes::from_static(b"early"), PATIENCE).await;
    assert_eq!(call, Err(CallError::NotFormed));
    assert_eq!(one.link(2).state, LinkState::Unknown);
    let mut raw = Raw::connect(&two).await;
    raw.say(Kind::Hello, &hello(1, 2, Purpose::Messages).encode()).await;
    let refused = raw.hear(&[Kind::Refused]).await;
    assert_eq!(Refusal::decode(refused.body), Ok(Refusal::NotFormed));

    one.peers.set_cluster(CLUSTER);
    two.peers.set_cluster(CLUSTER);
    one.connected(2).await;
    assert_eq!(one.peers.probe(&seed, probe).await, Ok(answer));
}

#[tokio::test]
async fn what_was_sent_before_anything_is_known_is_told_to_be_lost_once() {
    let mut one = Node::start(config(1, reserve(), &[])).await;
    (0..100).for_each(|number| one.send(2, number));
    assert_eq!(one.next().await, Heard::Unreachable(2));
    one.send(2, 100);
    until(|| one.link(2).dropped_frames == 101).await;
    assert_eq!(one.rest(), []);
}

#[tokio::test]
async fn a_peer_that_returns_is_heard_again_wherever_it_is() {
    let (mut one, two) = pair().await;
    one.rest();
    let (first, second) = (two.server.address(), reserve());
    two.server.shutdown().await;
    for at in [first, second] {
        assert_eq!(one.next().await, Heard::Unreachable(2));
        until(|| matches!(one.link(2).state, LinkState::Down { .. })).await;
        one.send(2, 1);
        one.know(&[(2, at)]);
        let mut two = Node::member(config(2, at, &[]), &[(1, one.server.address())]).await;
        one.connected(2).await;
        one.send(2, 2);
        assert_eq!(two.next().await, Heard::Pulse(1, 2), "nothing that was meant for the process before");
        assert_eq!(one.rest(), [], "one break, one word of it");
        two.server.shutdown().await;
    }
    assert_eq!(one.link(2).connects, 3);
}

#[tokio::test]
async fn whoever_else_answers_is_not_taken_for_the_peer() {
    let (mut one, two) = pair().await;
    one.rest();
    let at = two.server.address();
    one.know(&[(2, at), (3, at)]);
    assert_eq!(one.next().await, Heard::Unreachable(3));
    until(|| one.link(3).state == LinkState::Down { why: "node 2 answered".to_owned() }).await;
    assert!(is_up(&one.link(2)));
    one.know(&[(2, at)]);
    assert_eq!(one.peers.links().len(), 1);
}

#[tokio::test]
async fn nodes_of_two_clusters_do_not_speak() {
    let (one, two) = (reserve(), reserve());
    let (one, mut two) = (Node::start(config(1, one, &[])).await, Node::start(config(2, two, &[])).await);
    one.peers.set_cluster(OTHER_CLUSTER);
    two.peers.set_cluster(CLUSTER);
    one.know(&[(2, two.server.address())]);
    let why = format!("refused: it is in another cluster, {CLUSTER}");
    until(|| one.link(2).state == LinkState::Down { why: why.clone() }).await;
    assert!(two.refused("another cluster") > 0);
    assert_eq!(two.rest(), []);
}

#[tokio::test]
async fn fault_38_a_flipped_bit_closes_the_connection_and_the_link_comes_back() {
    let listener = TcpListener::bind(reserve()).await.unwrap();
    let between = listener.local_addr().unwrap();
    let mut two = Node::member(config(2, reserve(), &[]), &[]).await;
    let at = two.server.address();
    let proxy = tokio::spawn(async move {
        for broken in [true, false] {
            let (mut inner, _) = listener.accept().await.unwrap();
            let mut outer = TcpStream::connect(at).await.unwrap();
            if !broken {
                let _ = tokio::io::copy_bidirectional(&mut inner, &mut outer).await;
                return;
            }
            let (mut raw, mut frames) = (Raw::over(outer), Raw::over(inner));
            raw.say(Kind::Hello, &frames.hear(&[Kind::Hello]).await.body).await;
            frames.say(Kind::Welcome, &raw.hear(&[Kind::Welcome]).await.body).await;
            let first = frames.hear(&[Kind::Pulse]).await;
            let mut bytes = encode(first.kind, &first.body).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 4;
            raw.write(&bytes).await;
            raw.closed().await;
        }
    });
    let mut one = Node::member(config(1, reserve(), &[]), &[(2, between)]).await;
    one.connected(2).await;
    one.send(2, 1);
    assert_eq!(one.next().await, Heard::Unreachable(2));
    until(|| one.link(2).connects == 2).await;
    one.connected(2).await;
    one.send(2, 2);
    assert_eq!(two.next().await, Heard::Pulse(1, 2));
    assert_eq!(two.refused("frame checksum does not hold"), 1);
    one.server.shutdown().await;
    proxy.await.unwrap();
}

/// Passes bytes on to `at`, and cuts each of the first connections after a number of bytes that differs with each; flips a bit
/// before every second cut.
async fn cut_often(listener: TcpListener, at: SocketAddr, cuts: usize, over: Arc<Semaphore>) {
    for cut in 0.. {
        let (mut inner, _) = listener.accept().await.unwrap();
        let mut outer = TcpStream::connect(at).await.unwrap();
        if cut >= cuts {
            over.add_permits(1);
            let _ = tokio::io::copy_bidirectional(&mut inner, &mut outer).await;
            return;
        }
        let (mut from, mut back) = inner.split();
        let (mut replies, mut to) = outer.split();
        let forward = async {
            let mut left = 40 + cut * 397 % 5_000;
            let mut buffer = [0; 512];
            while left > 0 {
                let room = left.min(buffer.len());
                let read = from.read(&mut buffer[..room]).await.unwrap_or(0);
                left = if read == 0 { 0 } else { left - read };
                buffer[0] ^= u8::from(left == 0 && cut % 2 == 1);
                if to.write_all(&buffer[..read]).await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            () = forward => {}
            _ = tokio::io::copy(&mut replies, &mut back) => {}
        }
    }
}

#[tokio::test]
async fn connections_that_are_cut_anywhere_lose_frames_but_never_repeat_or_reorder_them() {
    let listener = TcpListener::bind(reserve()).await.unwrap();
    let between = listener.local_addr().unwrap();
    let mut two = Node::member(config(2, reserve(), &[]), &[]).await;
    let over = Arc::new(Semaphore::new(0));
    let proxy = tokio::spawn(cut_often(listener, two.server.address(), 20, Arc::clone(&over)));
    let mut one = Node::member(config(1, reserve(), &[]), &[(2, between)]).await;
    let (mut sent, began) = (0, Instant::now());
    while over.available_permits() == 0 {
        assert!(began.elapsed() < PATIENCE);
        (0..10).for_each(|more| one.send(2, sent + more));
        sent += 10;
        sleep(Duration::from_millis(1)).await;
    }
    one.connected(2).await;
    one.send(2, sent);
    let mut heard = Vec::new();
    while heard.last() != Some(&sent) {
        let Heard::Pulse(1, number) = two.next().await else { panic!("a pulse of node 1") };
        heard.push(number);
    }
    assert!(heard.len() > 20 && heard.is_sorted_by(|one, next| one < next), "{heard:?}");
    let told = one.rest().len();
    assert!((1..=21).contains(&told), "{told} words of 20 breaks");
    one.server.shutdown().await;
    proxy.await.unwrap();
}

#[tokio::test]
async fn fault_39_a_half_open_connection_is_noticed_and_made_anew() {
    let listener = TcpListener::bind(reserve()).await.unwrap();
    let mut config = config(1, reserve(), &[]);
    config.limits.silent_max = Duration::from_millis(150);
    let mut one = Node::member(config, &[(2, listener.local_addr().unwrap())]).await;
    let mut silent = Vec::new();
    for _ in 0..3 {
        let (socket, _) = timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
        let mut raw = Raw::over(socket);
        assert_eq!(raw.welcome(2).await, Hello { process: 100, ..hello(1, 2, Purpose::Messages) });
        silent.push(raw);
        assert_eq!(one.next().await, Heard::Unreachable(2), "a word for each connection that broke");
    }
    until(|| {
        matches!(&one.link(2).state, LinkState::Down { why } if why == "no sign of life")
            || one.link(2).state == LinkState::Dialling
    })
    .await;
}

#[tokio::test]
async fn a_peer_where_nobody_listens_any_more_is_told_to_be_gone_once() {
    let listener = TcpListener::bind(reserve()).await.unwrap();
    let mut one = Node::member(config(1, reserve(), &[]), &[(2, listener.local_addr().unwrap())]).await;
    // A connection that ends says nothing: whoever listens takes the next one.
    for _ in 0..2 {
        let mut raw = Raw::over(timeout(PATIENCE, listener.accept()).await.unwrap().unwrap().0);
        raw.welcome(2).await;
        one.connected(2).await;
        drop(raw);
        assert_eq!(one.next().await, Heard::Unreachable(2));
    }
    let mut raw = Raw::over(listener.accept().await.unwrap().0);
    raw.welcome(2).await;
    one.connected(2).await;
    drop((raw, listener));
    assert_eq!(one.next().await, Heard::Unreachable(2));
    assert_eq!(one.next().await, Heard::Gone(2));
    let dials = one.link(2).connects;
    until(|| matches!(&one.link(2).state, LinkState::Down { why } if why.contains("cannot connect"))).await;
    assert_eq!((one.rest(), one.link(2).connects), (vec![], dials), "told once");
}

#[tokio::test]
async fn a_slow_reader_fills_its_queue_and_nothing_else() {
    let listener = TcpListener::bind(reserve()).await.unwrap();
    let mut config = config(1, reserve(), &[]);
    config.limits.queue_frames_max = 200;
    let mut one = Node::member(config, &[(2, listener.local_addr().unwrap())]).await;
    let mut raw = Raw::over(listener.accept().await.unwrap().0);
    raw.welcome(2).await;
    one.connected(2).await;
    // Far beyond what socket buffers hold, while the reader lives and reads nothing.
    let mut sent = 0;
    while one.link(2).dropped_frames < 300 {
        raw.say(Kind::Alive, &[]).await;
        one.peers.send(id(2), Outgoing::Message(envelope(CLUSTER, 1, 2, sent, 100_000)));
        sent += 1;
        assert!(sent < 5_000);
    }
    assert_eq!(one.next().await, Heard::Unreachable(2));
    assert_eq!(one.rest(), [], "told once");
    let link = one.link(2);
    assert!(link.queued_frames <= 200 && link.queued_bytes <= 200 * 101_000 && is_up(&link));
    // It reads on: what comes is in order, and what was dropped is missing at the end.
    let mut last = None;
    for _ in 0..sent - link.dropped_frames {
        let frame = raw.hear(&[Kind::Message]).await;
        raw.say(Kind::Alive, &[]).await;
        let group = Envelope::decode(frame.body).unwrap().group.0;
        assert!(last.is_none_or(|last| last < group));
        last = Some(group);
    }
    until(|| one.link(2).queued_frames == 0).await;
    assert_eq!(one.rest(), []);
    assert_eq!(one.link(2).connects, 1);
}

#[tokio::test]
async fn at_shutdown_everything_ends() {
    let (one, two) = pair().await;
    let peers = one.peers.clone();
    let waiting = tokio::spawn(async move { peers.call(id(2), Bytes::from_static(b"wait"), PATIENCE).await });
    until(|| two.peers.refusals().is_empty() && one.peers.0.callers.lock().unwrap().len() == 1).await;
    let at = one.server.address();
    timeout(PATIENCE, one.server.shutdown()).await.expect("it ends");
    assert!(TcpStream::connect(at).await.is_err());
    assert!(waiting.await.unwrap().is_err());
    one.peers.send(id(2), Outgoing::Pulse(pulse(1, 1)));
    let call = one.peers.call(id(2), Bytes::new(), PATIENCE).await;
    assert_eq!(call, Err(CallError::Unreachable("the node stops".to_owned())));
}
