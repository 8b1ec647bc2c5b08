//! Connections that other nodes dialled: greeted, then read as what they are for.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
};

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use varve_common::NodeId;
use varve_consensus::{Envelope, Pulse, formation::Probe};

use super::{
    Shared,
    frame::{Frame, FrameError, Kind},
    handshake::{Hello, Purpose, Refusal, SPOKEN, SPOKEN_MIN, Welcome},
    limits::{ACCEPT_PAUSE, BACKLOG},
    link::Link,
    security::Proof,
    serve,
    talk::{Heard, Input, Output, Signs, say, split, within},
};
use crate::net::admission::{Admission, Admitted};

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It was all that was wanted.
    Done,
    /// What came is not to be read on.
    Frame(FrameError),
    /// The node did not want to speak with the other.
    Refused(Refusal),
    /// It could not be made secure.
    Insecure,
    /// Who dialled did not say who it is.
    NoGreeting,
    /// A message of another cluster came.
    OtherCluster,
    /// A message of another node's replica, or another node's pulse came.
    OtherSender,
    /// A message to another node's replica came.
    OtherReceiver,
    /// Nothing came for long.
    Silent,
    /// The peer has a newer connection.
    Replaced,
}

impl End {
    /// What the log and the metrics call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Frame(error) => error.name(),
            Self::Refused(refusal) => refusal.name(),
            Self::Insecure => "no secure connection",
            Self::NoGreeting => "no greeting in time",
            Self::OtherCluster => "message of another cluster",
            Self::OtherSender => "message of another node",
            Self::OtherReceiver => "message to another node",
            Self::Silent => "silent",
            Self::Replaced => "replaced by a newer connection",
        }
    }

    /// Whether the other side did what a node of this cluster does not do.
    const fn is_foreign(self) -> bool {
        match self {
            Self::Done | Self::Silent | Self::Replaced => false,
            // So it is while a cluster forms.
            Self::Refused(refusal) => !matches!(refusal, Refusal::NotFormed | Refusal::NotReady),
            Self::Frame(error) => error.is_foreign(),
            _ => true,
        }
    }
}

impl From<FrameError> for End {
    fn from(error: FrameError) -> Self {
        Self::Frame(error)
    }
}

/// Takes the address.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Accepts until the node stops.
pub async fn accept_all(shared: Arc<Shared>, listener: TcpListener, admission: Arc<Admission>) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shared.stopping.cancelled() => return,
        };
        match accepted {
            Ok((socket, client)) => match admission.admit(client.ip()) {
                Ok(admitted) => drop(shared.spawn(serve_one(Arc::clone(&shared), socket, client, admitted))),
                Err(refused) => shared.complain(refused.name(), Some(client)),
            },
            Err(error) if is_harmless(&error) => {}
            Err(_) => {
                shared.complain("accept failed", None);
                shared.clock.sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// A connection that was reset before it was accepted is nothing.
fn is_harmless(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset)
}

async fn serve_one(shared: Arc<Shared>, socket: TcpStream, client: SocketAddr, _admitted: Admitted) {
    // Fails only on a socket that is gone already; its first read says so.
    let _ = socket.set_nodelay(true);
    let end = tokio::select! {
        end = talk(&shared, socket) => end.unwrap_or_else(|end| end),
        () = shared.stopping.cancelled() => return,
    };
    if end.is_foreign() {
        shared.complain(end.name(), Some(client));
    } else if let End::Refused(refusal) = end {
        shared.refusals.count(refusal.name());
    } else {
        tracing::debug!(%client, why = end.name(), "connection of a peer ended");
    }
}

async fn talk(shared: &Arc<Shared>, socket: TcpStream) -> Result<End, End> {
    let greeted = within(&*shared.clock, shared.limits.greet_max, greet(shared, socket)).await;
    let Some((hello, input, output)) = greeted.ok_or(End::NoGreeting)?? else { return Ok(End::Done) };
    match hello.purpose {
        Purpose::Messages => {
            let link = shared.link(hello.from).ok_or(End::Refused(Refusal::Busy))?;
            messages(shared, &link, hello.from, input, output).await
        }
        Purpose::Calls | Purpose::Pieces => {
            serve::calls(shared, (hello.from, hello.purpose), input, output).await
        }
        Purpose::Name => Ok(End::Done),
    }
}

type Greeted = Option<(Hello, Input, Output)>;

/// Reads the first frame and answers it; gives the connection where there is more to come.
async fn greet(shared: &Arc<Shared>, socket: TcpStream) -> Result<Greeted, End> {
    let secured = shared.security.accept(socket).await.map_err(|_| End::Insecure)?;
    let (mut input, mut output) = split(secured.stream);
    let first = input.frames.whole(&mut input.half, &[Kind::Hello, Kind::Probe]).await?;
    if first.kind == Kind::Probe {
        answer(shared, first, &mut output).await?;
        return Ok(None);
    }
    let hello = Hello::decode(first.body).map_err(FrameError::malformed(Kind::Hello))?;
    match judge(shared, &hello, &secured.proof) {
        Ok(welcome) => say(&mut output, Kind::Welcome, &welcome.encode()).await?,
        Err(refusal) => {
            say(&mut output, Kind::Refused, &refusal.encode()).await?;
            return Err(End::Refused(refusal));
        }
    }
    Ok((hello.purpose != Purpose::Name).then_some((hello, input, output)))
}

async fn answer(shared: &Shared, frame: Frame, output: &mut Output) -> Result<(), End> {
    let probe = Probe::decode(frame.body).map_err(FrameError::malformed(Kind::Probe))?;
    match shared.handler.probed(probe) {
        Some(answer) => Ok(say(output, Kind::Answer, &answer.encode()).await?),
        None => {
            say(output, Kind::Refused, &Refusal::NotReady.encode()).await?;
            Err(End::Refused(Refusal::NotReady))
        }
    }
}

/// Whether this node speaks with whoever says and proves this of itself.
fn judge(shared: &Arc<Shared>, hello: &Hello, proof: &Proof) -> Result<Welcome, Refusal> {
    let spoken = hello.spoken.min(SPOKEN);
    if spoken < SPOKEN_MIN {
        return Err(Refusal::Version(SPOKEN));
    }
    if !proof.shows(hello.from) {
        return Err(Refusal::Certificate);
    }
    let cluster = shared.cluster().ok_or(Refusal::NotFormed)?;
    if hello.cluster != cluster {
        return Err(Refusal::OtherCluster(cluster));
    }
    // A node that asks under a seed's name finds itself there, too.
    let itself = hello.process == shared.process && hello.purpose == Purpose::Name;
    if hello.from == shared.node && !itself {
        return Err(Refusal::SameNode);
    }
    if hello.to.is_some_and(|to| to != shared.node) {
        return Err(Refusal::OtherNode(shared.node));
    }
    if hello.purpose == Purpose::Messages && shared.link(hello.from).is_none() {
        return Err(Refusal::Busy);
    }
    Ok(Welcome { spoken, node: shared.node, cluster, process: shared.process })
}

/// Counts a connection as long as it lives.
struct Present<'a>(&'a Link);

impl<'a> Present<'a> {
    fn new(link: &'a Link) -> Self {
        link.traffic.inbound.fetch_add(1, Ordering::Relaxed);
        Self(link)
    }
}

impl Drop for Present<'_> {
    fn drop(&mut self) {
        self.0.traffic.inbound.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn messages(
    shared: &Shared,
    link: &Link,
    from: NodeId,
    mut input: Input,
    mut output: Output,
) -> Result<End, End> {
    let replaced = link.replace_inbound();
    let _present = Present::new(link);
    let heard = Heard::new(Arc::clone(&shared.clock));
    tokio::select! {
        end = read_messages(shared, link, from, &heard, &mut input, &mut output) => end,
        () = heard.silence(shared.limits.inbound_silent_max) => Ok(End::Silent),
        () = replaced.cancelled() => Ok(End::Replaced),
        () = link.gone.cancelled() => Ok(End::Done),
    }
}

async fn read_messages(
    shared: &Shared,
    link: &Link,
    from: NodeId,
    heard: &Heard,
    input: &mut Input,
    output: &mut Output,
) -> Result<End, End> {
    let mut signs = Signs::new(shared.limits.alive_every);
    loop {
        let frame = input.frames.next(&mut input.half, &[Kind::Message, Kind::Pulse, Kind::Ping]).await?;
        signs.show(heard.mark(), output).await?;
        if let Some(frame) = frame
            && frame.kind != Kind::Ping
        {
            link.traffic.received(frame.body.len());
            hand_over(shared, from, frame)?;
        }
    }
}

/// Gives a message or a pulse to the node, if it is what its connection says (RAFT.md 2: what can be checked here).
fn hand_over(shared: &Shared, from: NodeId, frame: Frame) -> Result<(), End> {
    let cluster = shared.cluster();
    if frame.kind == Kind::Pulse {
        let pulse = Pulse::decode(frame.body).map_err(FrameError::malformed(Kind::Pulse))?;
        check(Some(pulse.cluster) == cluster, End::OtherCluster)?;
        check(pulse.from == from, End::OtherSender)?;
        shared.handler.pulse(from, pulse);
        return Ok(());
    }
    let envelope = Envelope::decode(frame.body).map_err(FrameError::no_envelope)?;
    check(Some(envelope.cluster) == cluster, End::OtherCluster)?;
    check(envelope.message.from().is_some_and(|replica| replica.node() == from), End::OtherSender)?;
    check(envelope.message.to().is_some_and(|replica| replica.node() == shared.node), End::OtherReceiver)?;
    shared.handler.message(from, envelope);
    Ok(())
}

fn check(holds: bool, end: End) -> Result<(), End> {
    if holds { Ok(()) } else { Err(end) }
}
