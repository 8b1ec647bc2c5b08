//! Mutual TLS: who is let in, who is not, and certificates that end or are replaced. The clock says 2030.

use std::sync::LazyLock;

use varve_common::Monotonic;

use super::{
    super::{
        authority::{Authority, Validity},
        tls::{Pem, TlsError},
    },
    *,
};

/// Certificates of two clusters, good for a century.
struct Made {
    authority: Vec<u8>,
    stranger: Vec<u8>,
    node_1: Vec<u8>,
    node_2: Vec<u8>,
    strange_node_2: Vec<u8>,
}

static MADE: LazyLock<Made> = LazyLock::new(|| {
    let validity = Validity { now: 1_790_000_000, span: Duration::from_hours(24 * 36_500) };
    let (authority, stranger) = (Authority::new().unwrap(), Authority::new().unwrap());
    let own = |authority: &Authority| authority.issued(validity).unwrap().certificate.into_bytes();
    let node = |of: &Authority, number| of.node(id(number), validity).unwrap().joined().into_bytes();
    Made {
        authority: own(&authority),
        stranger: own(&stranger),
        node_1: node(&authority, 1),
        node_2: node(&authority, 2),
        strange_node_2: node(&stranger, 2),
    }
});

const YEAR_MS: i64 = 31_556_952_000;

/// The machine's clock, but for the year.
struct Calendar(SystemClock, i64);

impl Clock for Calendar {
    fn monotonic(&self) -> Monotonic {
        self.0.monotonic()
    }

    fn wall_ms(&self) -> i64 {
        (self.1 - 1970) * YEAR_MS
    }

    fn sleep(&self, span: Duration) -> BoxFuture<'static, ()> {
        self.0.sleep(span)
    }
}

fn pem<'a>(authority: &'a [u8], own: &'a [u8]) -> Pem<'a> {
    Pem { authority, certificate: own, key: own }
}

fn tls_in(year: i64, node: u32, authority: &[u8], own: &[u8]) -> Arc<Tls> {
    let clock = Arc::new(Calendar(SystemClock::new(), year));
    Arc::new(Tls::new(id(node), clock, pem(authority, own)).unwrap())
}

fn tls(node: u32, authority: &[u8], own: &[u8]) -> Arc<Tls> {
    tls_in(2030, node, authority, own)
}

/// Node 1 under `security`, and a node that calls itself `number` under `other`, which dials it.
async fn pair(security: Arc<dyn Security>, number: u32, other: Arc<dyn Security>) -> (Node, Node) {
    let one = Node::member(PeerConfig { security, ..config(1, reserve(), &[]) }, &[]).await;
    let two = PeerConfig { security: other, ..config(number, reserve(), &[]) };
    let two = Node::member(two, &[(1, one.server.address())]).await;
    (one, two)
}

async fn fails(two: &Node, why: &str) {
    until(|| matches!(&two.link(1).state, LinkState::Down { why: found } if found.contains(why))).await;
}

#[tokio::test]
async fn nodes_with_certificates_of_the_cluster_speak_as_ever() {
    let (mut one, mut two) =
        pair(tls(1, &MADE.authority, &MADE.node_1), 2, tls(2, &MADE.authority, &MADE.node_2)).await;
    two.connected(1).await;
    for number in 0..100 {
        two.send(1, number);
        two.peers.send(id(1), Outgoing::Message(envelope(CLUSTER, 2, 1, number, 20_000)));
    }
    for number in 0..100 {
        assert_eq!(one.next().await, Heard::Pulse(2, number));
        assert_eq!(one.next().await, Heard::Message(2, number, 20_000));
    }
    let large = Bytes::from(vec![b'x'; 5 << 20]);
    let reply = two.peers.call(id(1), large, PATIENCE).await.unwrap();
    assert_eq!(reply.len(), (5 << 20) + 2);
    let seed = one.server.address().to_string();
    let probed = two.peers.probe(&seed, Probe { process: 1, number: 1 }).await.unwrap_err();
    assert!(probed.to_string().contains("not ready"), "{probed}");
    assert_eq!(two.rest(), []);
}

#[tokio::test]
async fn fault_72_whoever_another_authority_signed_is_not_let_in() {
    let (mut one, two) =
        pair(tls(1, &MADE.authority, &MADE.node_1), 2, tls(2, &MADE.authority, &MADE.node_2)).await;
    two.connected(1).await;
    let strange =
        PeerConfig { security: tls(2, &MADE.authority, &MADE.strange_node_2), ..config(2, reserve(), &[]) };
    let strange = Node::member(strange, &[(1, one.server.address())]).await;
    until(|| one.refused("no secure connection") > 0).await;
    assert!(!is_up(&strange.link(1)) && one.link(2).inbound);
    let distrusts =
        PeerConfig { security: tls(2, &MADE.stranger, &MADE.node_2), ..config(2, reserve(), &[]) };
    let distrusts = Node::member(distrusts, &[(1, one.server.address())]).await;
    fails(&distrusts, "cannot make the connection secure").await;
    assert_eq!(one.rest(), []);
}

#[tokio::test]
async fn fault_72_a_certificate_is_no_longer_good_when_its_time_is_over() {
    let (one, two) =
        pair(tls(1, &MADE.authority, &MADE.node_1), 2, tls_in(2200, 2, &MADE.authority, &MADE.node_2)).await;
    fails(&two, "cannot make the connection secure").await;
    assert!(one.peers.links().is_empty(), "it never got as far as its name");
    let (one, _two) =
        pair(tls_in(2200, 1, &MADE.authority, &MADE.node_1), 2, tls(2, &MADE.authority, &MADE.node_2)).await;
    until(|| one.refused("no secure connection") > 0).await;
}

#[tokio::test]
async fn fault_72_a_new_authority_is_taken_without_a_restart() {
    let (security, other) =
        (tls(1, &MADE.authority, &MADE.node_1), tls(2, &MADE.stranger, &MADE.strange_node_2));
    let (one, two) = pair(Arc::clone(&security) as _, 2, Arc::clone(&other) as _).await;
    fails(&two, "cannot make the connection secure").await;
    let both = [&MADE.authority[..], &MADE.stranger].concat();
    assert!(security.reload(pem(b"nothing", &MADE.node_1)).is_err());
    security.reload(pem(&both, &MADE.node_1)).unwrap();
    other.reload(pem(&both, &MADE.strange_node_2)).unwrap();
    two.connected(1).await;
    until(|| one.link(2).inbound).await;
}

#[tokio::test]
async fn plain_and_secure_nodes_do_not_speak() {
    let (one, two) = pair(tls(1, &MADE.authority, &MADE.node_1), 2, Arc::new(Plain)).await;
    until(|| one.refused("no secure connection") > 0).await;
    assert!(!is_up(&two.link(1)));
    let (one, two) = pair(Arc::new(Plain), 2, tls(2, &MADE.authority, &MADE.node_2)).await;
    fails(&two, "cannot make the connection secure").await;
    assert!(one.refused("unknown frame version") > 0);
}

#[tokio::test]
async fn with_the_key_of_one_node_nobody_speaks_for_another() {
    let mine = Tls::new(id(3), Arc::new(SystemClock::new()), pem(&MADE.authority, &MADE.node_2));
    assert!(matches!(mine, Err(TlsError::Names(node)) if node == id(3)));
    let (one, two) =
        pair(tls(1, &MADE.authority, &MADE.node_1), 3, tls(2, &MADE.authority, &MADE.node_2)).await;
    fails(&two, "node id is not the certificate's").await;
    assert!(one.refused("node id is not the certificate's") > 0);
    // And the side that was dialled.
    let three = PeerConfig { security: tls(2, &MADE.authority, &MADE.node_2), ..config(3, reserve(), &[]) };
    let three = Node::member(three, &[]).await;
    one.know(&[(3, three.server.address())]);
    let why = "refused: node id is not the certificate's".to_owned();
    until(|| one.link(3).state == LinkState::Down { why: why.clone() }).await;
}

#[test]
fn what_is_no_pem_is_named() {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let made = |pem| Tls::new(id(1), Arc::clone(&clock), pem);
    assert!(matches!(made(pem(b"", &MADE.node_1)), Err(TlsError::Authority)));
    assert!(matches!(made(pem(&MADE.authority, b"")), Err(TlsError::Certificate)));
    assert!(matches!(
        made(Pem { key: &MADE.authority, ..pem(&MADE.authority, &MADE.node_1) }),
        Err(TlsError::Key)
    ));
    assert!(matches!(
        made(Pem { key: &MADE.node_2, ..pem(&MADE.authority, &MADE.node_1) }),
        Err(TlsError::Setup(_))
    ));
}
