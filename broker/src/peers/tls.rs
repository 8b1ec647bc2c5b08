//! Mutual TLS between nodes: one authority for the cluster, and each node's number in its certificate.
//!
//! A node's certificate carries two DNS names: [`NAME`], by which every node of the cluster is dialled, and `node-<n>.peer.varve`,
//! which the greeting is held against, on both sides: with the key of one node nobody speaks for another. A certificate for
//! `*.peer.varve` shows that its holder belongs to the cluster, and leaves it to the greeting who it is.
//!
//! TLS 1.3 only, without resumption: every connection shows its certificate, so that one which is no longer good ends with the
//! connections that it made.

use std::{
    fmt, io,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    client::{Resumption, WebPkiServerVerifier, verify_server_name},
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject as _},
    server::{ParsedCertificate, WebPkiClientVerifier},
    time_provider::TimeProvider,
    version::TLS13,
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use varve_common::{Clock, NodeId, clock::BoxFuture};

use super::security::{Proof, Secured, Security};

/// The name in every node's certificate.
pub const NAME: &str = "peer.varve";

/// What a node proves itself and others by, as PEM.
#[derive(Clone, Copy)]
pub struct Pem<'a> {
    /// The cluster's authority; several while it is replaced.
    pub authority: &'a [u8],
    /// This node's certificate, and what leads to the authority.
    pub certificate: &'a [u8],
    /// Its key.
    pub key: &'a [u8],
}

/// Why TLS cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// There is no certificate in the authority's file, or it is not readable as PEM.
    #[error("the authority's file holds no certificate")]
    Authority,
    /// There is no certificate in this node's file, or it is not readable as PEM.
    #[error("the certificate's file holds no certificate")]
    Certificate,
    /// There is no key in the key's file, or it is not readable as PEM.
    #[error("the key's file holds no key")]
    Key,
    /// The certificate is for somebody else.
    #[error("the certificate does not carry the names {NAME} and node-{0}.{NAME}")]
    Names(NodeId),
    /// What was read does not fit together.
    #[error(transparent)]
    Setup(#[from] rustls::Error),
    /// The authority is none.
    #[error(transparent)]
    Verifier(#[from] rustls::client::VerifierBuilderError),
}

/// Mutual TLS.
pub struct Tls {
    node: NodeId,
    clock: Arc<dyn Clock>,
    sides: RwLock<Sides>,
}

#[derive(Clone)]
struct Sides {
    connector: TlsConnector,
    acceptor: TlsAcceptor,
}

impl Tls {
    /// Of this node.
    pub fn new(node: NodeId, clock: Arc<dyn Clock>, pem: Pem<'_>) -> Result<Self, TlsError> {
        let sides = RwLock::new(sides(node, &clock, pem)?);
        Ok(Self { node, clock, sides })
    }

    /// Takes a new certificate, key or authority for the connections that are made from now on; those that there are go on. On an
    /// error nothing changes.
    pub fn reload(&self, pem: Pem<'_>) -> Result<(), TlsError> {
        let sides = sides(self.node, &self.clock, pem)?;
        *self.sides.write().unwrap_or_else(PoisonError::into_inner) = sides;
        Ok(())
    }

    fn sides(&self) -> Sides {
        self.sides.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("node", &self.node).finish_non_exhaustive()
    }
}

impl Security for Tls {
    fn connect(&self, socket: TcpStream) -> BoxFuture<'static, io::Result<Secured>> {
        let connector = self.sides().connector;
        Box::pin(async move {
            let stream = connector.connect(name(NAME.to_owned()), socket).await?;
            let proof = proof(stream.get_ref().1.peer_certificates())?;
            Ok(Secured { stream: Box::new(stream), proof })
        })
    }

    fn accept(&self, socket: TcpStream) -> BoxFuture<'static, io::Result<Secured>> {
        let acceptor = self.sides().acceptor;
        Box::pin(async move {
            let stream = acceptor.accept(socket).await?;
            let proof = proof(stream.get_ref().1.peer_certificates())?;
            Ok(Secured { stream: Box::new(stream), proof })
        })
    }
}

/// Whether a certificate carries a node's name.
pub(super) fn names(certificate: &CertificateDer<'_>, node: NodeId) -> bool {
    carries(certificate, format!("node-{node}.{NAME}"))
}

fn carries(certificate: &CertificateDer<'_>, wanted: String) -> bool {
    let parsed = ParsedCertificate::try_from(certificate);
    parsed.is_ok_and(|parsed| verify_server_name(&parsed, &name(wanted)).is_ok())
}

fn name(name: String) -> ServerName<'static> {
    ServerName::try_from(name).expect("letters, digits, dashes and dots")
}

fn proof(chain: Option<&[CertificateDer<'static>]>) -> io::Result<Proof> {
    let own = chain.and_then(<[_]>::first).ok_or(io::ErrorKind::PermissionDenied)?;
    Ok(Proof::Certificate(own.clone()))
}

fn sides(node: NodeId, clock: &Arc<dyn Clock>, pem: Pem<'_>) -> Result<Sides, TlsError> {
    let mut roots = RootCertStore::empty();
    for root in certificates(pem.authority, TlsError::Authority)? {
        roots.add(root)?;
    }
    let chain = certificates(pem.certificate, TlsError::Certificate)?;
    let key = PrivateKeyDer::from_pem_slice(pem.key).map_err(|_| TlsError::Key)?;
    if !carries(&chain[0], NAME.to_owned()) || !names(&chain[0], node) {
        return Err(TlsError::Names(node));
    }
    let (roots, provider) = (Arc::new(roots), Arc::new(aws_lc_rs::default_provider()));
    let time: Arc<dyn TimeProvider> = Arc::new(Time(Arc::clone(clock)));
    let connector = client(&roots, &provider, Arc::clone(&time), chain.clone(), key.clone_key())?;
    let acceptor = server(&roots, &provider, time, chain, key)?;
    Ok(Sides { connector: Arc::new(connector).into(), acceptor: Arc::new(acceptor).into() })
}

fn certificates(pem: &[u8], none: TlsError) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    match CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>() {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(none),
    }
}

fn client(
    roots: &Arc<RootCertStore>,
    provider: &Arc<CryptoProvider>,
    time: Arc<dyn TimeProvider>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ClientConfig, TlsError> {
    let verifier =
        WebPkiServerVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(provider)).build()?;
    let mut config = ClientConfig::builder_with_details(Arc::clone(provider), time)
        .with_protocol_versions(&[&TLS13])?
        .with_webpki_verifier(verifier)
        .with_client_auth_cert(chain, key)?;
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn server(
    roots: &Arc<RootCertStore>,
    provider: &Arc<CryptoProvider>,
    time: Arc<dyn TimeProvider>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ServerConfig, TlsError> {
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(provider)).build()?;
    let mut config = ServerConfig::builder_with_details(Arc::clone(provider), time)
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)?;
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// The node's own clock says whether a certificate is still good.
struct Time(Arc<dyn Clock>);

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Time")
    }
}

impl TimeProvider for Time {
    fn current_time(&self) -> Option<UnixTime> {
        let millis = u64::try_from(self.0.wall_ms()).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_millis(millis)))
    }
}
