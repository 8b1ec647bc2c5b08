//! A broker as it runs, through its socket: every API in every version, and idempotence.

#[path = "../src/handlers/surface/mod.rs"]
mod surface;

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use varve_broker::config::{Config, Sources};
use varve_protocol::{Request, Response, response::split_response};

/// One connection that must not be closed.
struct Connection {
    stream: TcpStream,
    correlation: i32,
}

impl surface::Peer for Connection {
    async fn ask(&mut self, version: i16, request: Request) -> Response {
        let key = request.key();
        self.correlation += 1;
        let frame = request.encode(version, self.correlation, Some("surface")).unwrap();
        self.stream.write_all(&frame).await.unwrap();
        let answer = timeout(Duration::from_secs(30), frame_of(&mut self.stream)).await;
        let answer = answer
            .unwrap_or_else(|_| panic!("{key:?} {version} is not answered"))
            .unwrap_or_else(|error| panic!("{key:?} {version} closed the connection: {error}"));
        let (correlation, body) = split_response(key, version, answer).unwrap();
        assert_eq!(correlation, self.correlation);
        Response::decode(key, version, body).unwrap()
    }
}

async fn frame_of(stream: &mut TcpStream) -> std::io::Result<Bytes> {
    let bytes = stream.read_i32().await?;
    let mut frame = vec![0; usize::try_from(bytes).unwrap()];
    stream.read_exact(&mut frame).await?;
    Ok(frame.into())
}

async fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

/// Starts a broker on a thread of its own, as `varve serve` does, and connects. It ends with the test's process.
async fn broker(data: &std::path::Path) -> Connection {
    let address = free_address().await;
    let flags = [
        ("data.dir", data.display().to_string()),
        ("listen", address.to_string()),
        ("admin.listen", free_address().await.to_string()),
        ("varve.wal.bytes.max", "256MiB".to_owned()),
        ("varve.wal.file.bytes", "16MiB".to_owned()),
        ("offsets.topic.num.partitions", "3".to_owned()),
        ("group.initial.rebalance.delay.ms", "0".to_owned()),
    ];
    let flags = flags.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let config = Config::load(&Sources { flags, ..Sources::default() }).unwrap();
    std::thread::spawn(move || varve_broker::run(config).unwrap());
    for _ in 0..1_000 {
        if let Ok(stream) = TcpStream::connect(address).await {
            stream.set_nodelay(true).unwrap();
            return Connection { stream, correlation: 0 };
        }
        sleep(Duration::from_millis(10)).await;
    }
    panic!("the broker does not listen")
}

#[tokio::test]
async fn a_running_broker_answers_every_api_in_every_version_on_one_connection() {
    let data = tempfile::tempdir().unwrap();
    let mut connection = broker(data.path()).await;
    surface::idempotence(&mut connection).await;
    surface::every_api_in_every_version(&mut connection).await;
}
