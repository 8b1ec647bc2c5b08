//! What stands between a socket and the frames: nothing, or TLS. The seam is a stream in, a stream out.

use std::io;

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use varve_common::{NodeId, clock::BoxFuture};

/// A connection, whatever it runs over.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A connection that is ready for frames.
pub struct Secured {
    /// Where they go.
    pub stream: Box<dyn Duplex>,
    /// Who the other side has proven to be; `None` where nobody asks for proof. What it says of itself must agree.
    pub node: Option<NodeId>,
}

/// Makes connections secure, on both sides. Deadlines are the caller's business.
pub trait Security: Send + Sync + 'static {
    /// The side that dialled; `host` is the name or address that was dialled, without its port.
    fn connect(&self, socket: TcpStream, host: &str) -> BoxFuture<'static, io::Result<Secured>>;

    /// The side that accepted.
    fn accept(&self, socket: TcpStream) -> BoxFuture<'static, io::Result<Secured>>;
}

/// Whoever can reach the port is believed.
#[derive(Clone, Copy, Debug)]
pub struct Plain;

impl Security for Plain {
    fn connect(&self, socket: TcpStream, _: &str) -> BoxFuture<'static, io::Result<Secured>> {
        self.accept(socket)
    }

    fn accept(&self, socket: TcpStream) -> BoxFuture<'static, io::Result<Secured>> {
        Box::pin(async { Ok(Secured { stream: Box::new(socket), node: None }) })
    }
}
