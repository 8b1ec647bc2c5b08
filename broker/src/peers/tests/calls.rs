//! Calls: replies in any order, deadlines, and what is known when there is no reply.

use tokio::net::TcpListener;

use super::{
    limits::{CALL_BYTES_MAX, CALLS_MAX},
    *,
};

async fn pair() -> (Node, Node) {
    let two = Node::member(config(2, reserve(), &[]), &[]).await;
    let one = Node::member(config(1, reserve(), &[]), &[(2, two.server.address())]).await;
    (one, two)
}

fn ask(node: &Node, to: u32, body: &'static [u8]) -> JoinHandle<Result<Bytes, CallError>> {
    let peers = node.peers.clone();
    tokio::spawn(async move { peers.call(id(to), Bytes::from_static(body), PATIENCE).await })
}

#[tokio::test]
async fn replies_come_as_they_are_ready_and_a_node_answers_itself() {
    let (one, two) = pair().await;
    let slow = ask(&one, 2, b"wait");
    assert_eq!(one.peers.call(id(2), Bytes::from_static(b"now"), PATIENCE).await.unwrap(), "1:now");
    assert!(!slow.is_finished());
    two.handler.gate.add_permits(1);
    assert_eq!(slow.await.unwrap().unwrap(), "1:wait");
    assert_eq!(one.peers.call(id(1), Bytes::from_static(b"self"), PATIENCE).await.unwrap(), "1:self");
    let large = vec![b'x'; CALL_BYTES_MAX - 2];
    let reply = one.peers.call(id(2), large.into(), PATIENCE).await.unwrap();
    assert_eq!(reply.len(), CALL_BYTES_MAX);
}

#[tokio::test]
async fn who_was_not_asked_cannot_have_done_it() {
    let (one, two) = pair().await;
    let unknown = one.peers.call(id(9), Bytes::new(), PATIENCE).await.unwrap_err();
    assert_eq!((unknown.may_be_done(), unknown), (false, CallError::Unknown(id(9))));
    let large = Bytes::from(vec![0; CALL_BYTES_MAX + 1]);
    assert_eq!(one.peers.call(id(2), large, PATIENCE).await, Err(CallError::TooLarge(CALL_BYTES_MAX + 1)));
    two.server.shutdown().await;
    let gone = one.peers.call(id(2), Bytes::new(), PATIENCE).await.unwrap_err();
    assert!(matches!(gone, CallError::Unreachable(_)), "{gone}");
    assert_eq!(one.peers.0.caller(id(2), Purpose::Calls).unwrap().held(), (0, 0));
}

#[tokio::test]
async fn who_was_asked_may_have_done_it() {
    let (one, two) = pair().await;
    let late =
        one.peers.call(id(2), Bytes::from_static(b"wait"), Duration::from_millis(200)).await.unwrap_err();
    assert_eq!((late.may_be_done(), late), (true, CallError::Late));
    let huge = one.peers.call(id(2), Bytes::from_static(b"huge"), PATIENCE).await.unwrap_err();
    assert_eq!(huge, CallError::Lost("the reply is too large".to_owned()));
    let lost = ask(&one, 2, b"wait");
    // The reply to the second shows that the first has arrived.
    assert!(one.peers.call(id(2), Bytes::from_static(b"now"), PATIENCE).await.is_ok());
    two.server.shutdown().await;
    let lost = lost.await.unwrap().unwrap_err();
    assert!(matches!(lost, CallError::Lost(_)), "{lost}");
    assert_eq!(one.peers.0.caller(id(2), Purpose::Calls).unwrap().held(), (0, 0));
}

#[tokio::test]
async fn calls_that_wait_are_bounded_and_those_given_up_make_room() {
    let (one, two) = pair().await;
    let waiting: Vec<_> = (0..CALLS_MAX).map(|_| ask(&one, 2, b"wait")).collect();
    until(|| {
        one.peers
            .0
            .caller(id(2), Purpose::Calls)
            .is_ok_and(|caller| caller.held() == (CALLS_MAX, 4 * CALLS_MAX))
    })
    .await;
    assert_eq!(one.peers.call(id(2), Bytes::new(), PATIENCE).await, Err(CallError::Busy(id(2))));
    for call in &waiting[1..] {
        call.abort();
    }
    until(|| one.peers.0.caller(id(2), Purpose::Calls).is_ok_and(|caller| caller.held() == (1, 4))).await;
    assert_eq!(one.peers.call(id(2), Bytes::from_static(b"now"), PATIENCE).await.unwrap(), "1:now");
    two.handler.gate.add_permits(CALLS_MAX);
    assert_eq!(waiting.into_iter().next().unwrap().await.unwrap().unwrap(), "1:wait");
}

#[tokio::test]
async fn fault_39_a_callee_that_stands_still_is_given_up() {
    let listener = TcpListener::bind(reserve()).await.unwrap();
    let mut config = config(1, reserve(), &[]);
    config.limits.silent_max = Duration::from_millis(150);
    let one = Node::start(config).await;
    one.peers.set_cluster(CLUSTER);
    one.peers.0.routes.set_addresses([(id(2), listener.local_addr().unwrap().to_string())].into());
    let call = ask(&one, 2, b"anybody");
    let mut raw = Raw::over(listener.accept().await.unwrap().0);
    assert_eq!(raw.welcome(2).await.purpose, Purpose::Calls);
    raw.hear(&[Kind::Call]).await;
    assert_eq!(call.await.unwrap(), Err(CallError::Lost("no sign of life".to_owned())));
}

#[tokio::test]
async fn a_connection_that_nobody_uses_is_closed() {
    let two = Node::member(config(2, reserve(), &[]), &[]).await;
    let mut config = config(1, reserve(), &[]);
    config.limits.call_idle_max = Duration::from_millis(60);
    let one = Node::member(config, &[(2, two.server.address())]).await;
    for _ in 0..2 {
        assert!(one.peers.call(id(2), Bytes::new(), PATIENCE).await.is_ok());
        until(|| !one.peers.0.caller(id(2), Purpose::Calls).unwrap().is_kept()).await;
    }
}
