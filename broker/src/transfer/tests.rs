use std::{
    collections::BTreeMap,
    future::Future,
    pin::pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use varve_common::{Clock, Digest, GroupId, LogIndex, Monotonic, NodeId, Offset, Term, clock::BoxFuture};
use varve_formats::command::PublishedCheckpoint;

use super::{
    FetchError, File, Pace, Reply, Request, TransferOptions, Transfers, Way,
    limits::{PACE_MIN, ROUNDS_MAX},
};

const GROUP: GroupId = GroupId(4);

/// A clock that jumps to the end of every sleep.
#[derive(Clone, Default)]
struct Jumping(Arc<Mutex<Duration>>);

impl Clock for Jumping {
    fn monotonic(&self) -> Monotonic {
        Monotonic::default().plus(*self.0.lock().unwrap())
    }

    fn wall_ms(&self) -> i64 {
        0
    }

    fn sleep(&self, span: Duration) -> BoxFuture<'static, ()> {
        *self.0.lock().unwrap() += span;
        Box::pin(std::future::ready(()))
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => done,
        Poll::Pending => panic!("nothing here waits"),
    }
}

fn node(id: u32) -> NodeId {
    NodeId::new(id).unwrap()
}

/// Other nodes: what each has, and after how many answers it dies.
#[derive(Default)]
struct Others {
    files: BTreeMap<NodeId, Bytes>,
    dies_after: BTreeMap<NodeId, usize>,
    asked: Mutex<Vec<(NodeId, u64)>>,
}

impl Way for Others {
    fn ask(&self, node: NodeId, request: Bytes) -> BoxFuture<'static, Result<Bytes, String>> {
        let request = Request::decode(request).unwrap();
        let mut asked = self.asked.lock().unwrap();
        asked.push((node, request.position));
        let answers = asked.iter().filter(|(other, _)| *other == node).count();
        let lives = self.dies_after.get(&node).is_none_or(|after| answers <= *after);
        let reply = self.files.get(&node).filter(|_| lives).map(|file| {
            let start = (request.position as usize).min(file.len());
            let end = (start + request.bytes_max as usize).min(file.len());
            let (length, sha256) = (file.len() as u64, Digest::of(file));
            Reply::Piece { length, sha256, piece: file.slice(start..end) }.encode()
        });
        Box::pin(std::future::ready(reply.ok_or_else(|| "it is gone".to_owned())))
    }
}

fn transfers(others: &Arc<Others>, clock: &Jumping) -> Transfers {
    let options = TransferOptions { bytes_per_second: PACE_MIN, piece_bytes: 10 };
    let way = Arc::clone(others) as Arc<dyn Way>;
    Transfers::new(Some(way), options, Arc::new(clock.clone()))
}

fn wanted(file: &Bytes) -> PublishedCheckpoint {
    PublishedCheckpoint {
        uid: 0,
        key_term: Term(3),
        state_index: LogIndex(7),
        state_term: Term(3),
        state_offset: Offset(70),
        applied_index: LogIndex(9),
        log_start: Offset::ZERO,
        bytes: file.len() as u64,
        sha256: Digest::of(file),
        published_ms: 0,
    }
}

#[test]
fn a_transfer_goes_on_with_another_node_from_where_it_is() {
    let file = Bytes::from_static(b"all that is said here comes in pieces of ten bytes");
    let files = [(node(2), file.clone()), (node(3), file.clone())].into();
    let others = Arc::new(Others { files, dies_after: [(node(2), 2)].into(), ..Others::default() });
    let moves = transfers(&others, &Jumping::default());
    let came = block_on(moves.checkpoint(&[node(2), node(3)], GROUP, &wanted(&file))).unwrap();
    assert_eq!(came, file);
    let asked = others.asked.lock().unwrap().clone();
    let (second, third) = (node(2), node(3));
    assert_eq!(asked, [(second, 0), (second, 10), (second, 20), (third, 20), (third, 30), (third, 40)]);
    assert_eq!(moves.counts().received, file.len() as u64);
}

#[test]
fn another_file_is_not_mixed_in_and_nobody_is_asked_for_ever() {
    let file = Bytes::from_static(b"what is wanted");
    let others = Arc::new(Others {
        files: [(node(2), Bytes::from_static(b"what was there before it"))].into(),
        ..Others::default()
    });
    let moves = transfers(&others, &Jumping::default());
    let refused = block_on(moves.checkpoint(&[node(2), node(3)], GROUP, &wanted(&file)));
    assert!(matches!(refused, Err(FetchError::Nobody(_))), "{refused:?}");
    assert_eq!(others.asked.lock().unwrap().len(), 2 * ROUNDS_MAX);
    let alone = block_on(moves.checkpoint(&[], GROUP, &wanted(&file)));
    assert!(matches!(alone, Err(FetchError::Alone)), "{alone:?}");
}

#[test]
fn bytes_pass_at_the_pace_that_is_given() {
    let clock = Jumping::default();
    let pace = Pace::new(Arc::new(clock.clone()), 1 << 20);
    for _ in 0..64 {
        block_on(pace.take(1 << 18));
    }
    let took = clock.monotonic().since(Monotonic::default());
    assert!((Duration::from_secs(15)..=Duration::from_secs(16)).contains(&took), "{took:?}");
}

#[test]
fn what_lacks_is_told_until_it_is_here() {
    let moves = transfers(&Arc::default(), &Jumping::default());
    moves.note_lacking(GROUP, 30);
    moves.note_lacking(GroupId(5), 12);
    moves.note_lacking(GROUP, 10);
    assert_eq!((moves.counts().moves, moves.counts().lacking), (2, 22));
    moves.note_lacking(GROUP, 0);
    assert_eq!((moves.counts().moves, moves.counts().lacking), (1, 12));
}

#[test]
fn questions_and_answers_are_read_as_they_were_written() {
    let requests = [File::Checkpoint(Digest::of(b"x")), File::Segment(Offset(3), Offset(9))];
    for file in requests {
        let request = Request { group: GROUP, file, position: 1 << 40, bytes_max: 1 << 20 };
        let bytes = request.encode();
        assert_eq!(Request::decode(bytes.clone()), Ok(request));
        for cut in 0..bytes.len() {
            assert!(Request::decode(bytes.slice(..cut)).is_err(), "cut at {cut}");
        }
    }
    let piece =
        Reply::Piece { length: 12, sha256: Digest::of(b"y"), piece: Bytes::from_static(b"some of it") };
    for reply in [piece, Reply::Trimmed, Reply::NotHere, Reply::NotUnderstood] {
        let bytes = reply.encode();
        assert_eq!(Reply::decode(bytes.clone()), Ok(reply));
        (0..bytes.len()).for_each(|cut| assert!(Reply::decode(bytes.slice(..cut)).is_err(), "cut at {cut}"));
    }
}

/// Nodes of several releases speak with each other while they are replaced one by one.
#[test]
fn the_bytes_of_a_question_stay_what_they_are() {
    let request =
        Request { group: GROUP, file: File::Segment(Offset(3), Offset(9)), position: 5, bytes_max: 7 };
    let bytes = request.encode();
    let frame = [&4_u64.to_le_bytes()[..], &3_u64.to_le_bytes(), &9_u64.to_le_bytes(), &5_u64.to_le_bytes()];
    let frame = [frame.concat(), 7_u32.to_le_bytes().to_vec()].concat();
    let expected = [&[1, 2][..], &(frame.len() as u32).to_le_bytes(), &frame].concat();
    assert_eq!(bytes, expected);
}
