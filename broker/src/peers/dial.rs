//! Makes a connection to a node: name, address, socket, security, greeting.

use std::{io, net::SocketAddr, sync::Arc};

use tokio::net::TcpStream;
use varve_common::{ClusterId, NodeId};
use varve_consensus::formation::{Answer, Probe};

use super::{
    Shared,
    frame::{Frame, FrameError, Kind},
    handshake::{Hello, Purpose, Refusal, SPOKEN, SPOKEN_MIN, Welcome},
    security::Secured,
    talk::{Input, Output, say, split, within},
};

/// A connection on which both sides know each other.
pub struct Dialled {
    /// What comes.
    pub input: Input,
    /// What goes.
    pub output: Output,
    /// Who answered.
    pub welcome: Welcome,
}

/// Why there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DialError {
    /// This node is in no cluster yet.
    #[error("this node is in no cluster yet")]
    NotFormed,
    /// The name leads nowhere.
    #[error("the name cannot be resolved: {0}")]
    Name(io::ErrorKind),
    /// Nobody listens there, or the network does not lead there.
    #[error("cannot connect: {0}")]
    Connect(io::ErrorKind),
    /// The connection could not be made secure.
    #[error("cannot make the connection secure: {0}")]
    Secure(io::ErrorKind),
    /// It took too long.
    #[error("no answer in time")]
    Late,
    /// The other does not want to.
    #[error("refused: {0}")]
    Refused(Refusal),
    /// The other is not the node that was wanted.
    #[error("node {0} answered")]
    OtherNode(NodeId),
    /// The other is in another cluster, and welcomes this node.
    #[error("a node of cluster {0} answered")]
    OtherCluster(ClusterId),
    /// What it answered is no answer.
    #[error(transparent)]
    Frame(#[from] FrameError),
}

/// Connects to a node under one of the addresses of `name`, and to nobody else where `to` says to whom.
pub async fn dial(
    shared: &Shared,
    name: &str,
    to: Option<NodeId>,
    purpose: Purpose,
) -> Result<Dialled, DialError> {
    let mut last = DialError::Name(io::ErrorKind::NotFound);
    for address in resolve(shared, name).await?.iter() {
        match dial_address(shared, *address, to, purpose).await {
            Ok(dialled) => return Ok(dialled),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The addresses of a name.
pub async fn resolve(shared: &Shared, name: &str) -> Result<Arc<[SocketAddr]>, DialError> {
    let found = within(&*shared.clock, shared.limits.dial_max, shared.resolver.resolve(name)).await;
    found.ok_or(DialError::Late)?.map_err(DialError::Name)
}

/// Connects to the node at one address.
pub async fn dial_address(
    shared: &Shared,
    address: SocketAddr,
    to: Option<NodeId>,
    purpose: Purpose,
) -> Result<Dialled, DialError> {
    let greeted = async {
        let secured = connect(shared, address).await?;
        greet(shared, secured, to, purpose).await
    };
    within(&*shared.clock, shared.limits.dial_max, greeted).await.ok_or(DialError::Late)?
}

async fn connect(shared: &Shared, address: SocketAddr) -> Result<Secured, DialError> {
    let socket = TcpStream::connect(address).await.map_err(|error| DialError::Connect(error.kind()))?;
    // Fails only on a socket that is gone already; the first write says so.
    let _ = socket.set_nodelay(true);
    let secured = shared.security.connect(socket).await;
    secured.map_err(|error| DialError::Secure(error.kind()))
}

async fn greet(
    shared: &Shared,
    secured: Secured,
    to: Option<NodeId>,
    purpose: Purpose,
) -> Result<Dialled, DialError> {
    let cluster = shared.cluster().ok_or(DialError::NotFormed)?;
    let (mut input, mut output) = split(secured.stream);
    let hello = Hello { spoken: SPOKEN, cluster, from: shared.node, to, process: shared.process, purpose };
    say(&mut output, Kind::Hello, &hello.encode()).await?;
    let frame = input.frames.whole(&mut input.half, &[Kind::Welcome, Kind::Refused]).await?;
    let welcome = welcome(frame)?;
    if welcome.cluster != cluster {
        return Err(DialError::OtherCluster(welcome.cluster));
    }
    if !secured.proof.shows(welcome.node) {
        return Err(DialError::Refused(Refusal::Certificate));
    }
    if to.is_some_and(|to| to != welcome.node) {
        return Err(DialError::OtherNode(welcome.node));
    }
    if !(SPOKEN_MIN..=SPOKEN).contains(&welcome.spoken) {
        return Err(DialError::Refused(Refusal::Version(welcome.spoken)));
    }
    Ok(Dialled { input, output, welcome })
}

fn welcome(frame: Frame) -> Result<Welcome, DialError> {
    if frame.kind == Kind::Refused {
        let refusal = Refusal::decode(frame.body).map_err(FrameError::malformed(Kind::Refused))?;
        return Err(match refusal {
            Refusal::OtherNode(node) => DialError::OtherNode(node),
            refusal => DialError::Refused(refusal),
        });
    }
    Ok(Welcome::decode(frame.body).map_err(FrameError::malformed(Kind::Welcome))?)
}

/// Asks whoever is at `name` what it is; before there is a cluster, too.
pub async fn probe(shared: &Shared, name: &str, probe: Probe) -> Result<Answer, DialError> {
    let mut last = DialError::Name(io::ErrorKind::NotFound);
    for address in resolve(shared, name).await?.iter() {
        let asked = ask(shared, *address, probe);
        match within(&*shared.clock, shared.limits.dial_max, asked).await {
            Some(Ok(answer)) => return Ok(answer),
            Some(Err(error)) => last = error,
            None => last = DialError::Late,
        }
    }
    Err(last)
}

async fn ask(shared: &Shared, address: SocketAddr, probe: Probe) -> Result<Answer, DialError> {
    let secured = connect(shared, address).await?;
    let (mut input, mut output) = split(secured.stream);
    say(&mut output, Kind::Probe, &probe.encode()).await?;
    let frame = input.frames.whole(&mut input.half, &[Kind::Answer, Kind::Refused]).await?;
    if frame.kind == Kind::Refused {
        let refusal = Refusal::decode(frame.body).map_err(FrameError::malformed(Kind::Refused))?;
        return Err(DialError::Refused(refusal));
    }
    let answer = Answer::decode(frame.body).map_err(FrameError::malformed(Kind::Answer))?;
    let asked = (answer.process, answer.number) == (probe.process, probe.number);
    if asked { Ok(answer) } else { Err(FrameError::Malformed(Kind::Answer, "to another question").into()) }
}
