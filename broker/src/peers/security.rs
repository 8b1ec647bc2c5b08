//! What stands between a socket and the frames: nothing, or TLS ([`super::tls`]). The seam is a stream in, a stream out.

use std::io;

use rustls::pki_types::CertificateDer;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use varve_common::{NodeId, clock::BoxFuture};

/// A connection, whatever it runs over.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Who the other side has proven to be.
#[derive(Debug)]
pub enum Proof {
    /// It was not asked: it is believed.
    Unasked,
    /// Whoever this certificate names, which somebody whom the cluster trusts has signed.
    Certificate(CertificateDer<'static>),
}

impl Proof {
    /// Whether it may be this node.
    #[must_use]
    pub fn shows(&self, node: NodeId) -> bool {
        match self {
            Self::Unasked => true,
            Self::Certificate(certificate) => super::tls::names(certificate, node),
        }
    }
}

/// A connection that is ready for frames.
pub struct Secured {
    /// Where they go.
    pub stream: Box<dyn Duplex>,
    /// Who is there. What the other side says of itself must agree.
    pub proof: Proof,
}

/// Makes connections secure, on both sides. Deadlines are the caller's business.
pub trait Security: Send + Sync + 'static {
    /// The side that dialled.
    fn connect(&self, socket: TcpStream) -> BoxFuture<'static, io::Result<Secured>>;

    /// The side that accepted.
    fn accept(&self, socket: TcpStream) -> BoxFuture<'static, io::Result<Secured>>;
}

/// Whoever can reach the port is believed.
#[derive(Clone, Copy, Debug)]
pub struct Plain;

impl Security for Plain {
    fn connect(&self, socket: TcpStream) -> BoxFuture<'static, io::Result<Secured>> {
        self.accept(socket)
    }

    fn accept(&self, socket: TcpStream) -> BoxFuture<'static, io::Result<Secured>> {
        Box::pin(async { Ok(Secured { stream: Box::new(socket), proof: Proof::Unasked }) })
    }
}
