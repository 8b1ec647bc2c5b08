//! What this node proves itself by among the others, and its files as they change.

use std::{sync::Arc, time::Duration};

use varve_common::{Clock, NodeId};

use crate::{
    config::{PeerPem, PeerTls, PeerTlsError},
    metrics::Metrics,
    peers::{
        Plain, Security, Tls, expiry,
        tls::{Pem, TlsError},
    },
};

/// How often the files are looked at.
const INTERVAL: Duration = Duration::from_secs(30);
/// So long before it ends the log says so, at each start and replacement.
const WARN_DAYS: i64 = 30;

/// Why nodes cannot prove themselves to each other.
#[derive(Debug, thiserror::Error)]
pub enum CertificatesError {
    /// A file cannot be read.
    #[error(transparent)]
    Read(#[from] PeerTlsError),
    /// What is in the files does not do.
    #[error("tls between nodes: {0}")]
    Tls(#[from] TlsError),
}

/// The files, and what was made of them.
pub struct Certificates {
    files: PeerTls,
    used: PeerPem,
    tls: Arc<Tls>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
}

impl Certificates {
    /// Reads the files of this node.
    pub fn read(
        files: PeerTls,
        node: NodeId,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, CertificatesError> {
        let used = files.read()?;
        let tls = Arc::new(Tls::new(node, Arc::clone(&clock), pem(&used))?);
        let certificates = Self { files, used, tls, clock, metrics };
        certificates.tell_end();
        Ok(certificates)
    }

    /// Tells when they end, so that somebody replaces them before.
    fn tell_end(&self) {
        let Some(end) = end(&self.used) else { return };
        self.metrics.handles.peer_certificate_end.set(end as f64);
        let days = (end - self.clock.wall_ms() / 1000) / 86_400;
        if days < WARN_DAYS {
            tracing::warn!(days, "the certificate between nodes ends soon");
        }
    }

    /// What connections are made secure by.
    #[must_use]
    pub fn security(files: Option<&Self>) -> Arc<dyn Security> {
        match files {
            Some(files) => Arc::clone(&files.tls) as _,
            None => Arc::new(Plain),
        }
    }

    /// Takes what changes in the files, until it is dropped.
    pub async fn follow(mut self) {
        loop {
            self.clock.sleep(INTERVAL).await;
            match self.look() {
                Ok(false) => {}
                Ok(true) => tracing::info!("certificates between nodes were replaced"),
                Err(error) => {
                    tracing::error!(%error, "new certificates between nodes are not usable: the old ones stay")
                }
            }
        }
    }

    /// Whether there was something new. While the files are being replaced they may not fit each other: the next look finds them whole.
    fn look(&mut self) -> Result<bool, CertificatesError> {
        let found = self.files.read()?;
        if found == self.used {
            return Ok(false);
        }
        self.tls.reload(pem(&found))?;
        self.used = found;
        self.tell_end();
        Ok(true)
    }
}

/// When this node can no longer prove itself, or nobody else can to it.
fn end(files: &PeerPem) -> Option<i64> {
    let own = expiry::all(&files.certificate).first().copied();
    let authority = expiry::all(&files.authority).into_iter().max();
    own.into_iter().chain(authority).min()
}

fn pem(files: &PeerPem) -> Pem<'_> {
    Pem { authority: &files.authority, certificate: &files.certificate, key: &files.key }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        peers::authority::{Authority, Validity},
        runtime::clock::SystemClock,
    };

    #[test]
    #[allow(clippy::disallowed_methods, reason = "the test is the other program that writes them")]
    fn files_that_change_are_taken_and_what_does_not_fit_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let validity = Validity { now: 1_790_000_000, span: Duration::from_hours(24 * 3650) };
        let (authority, stranger) = (Authority::new().unwrap(), Authority::new().unwrap());
        let put = |from: &str, to: &str| {
            let node = |number| authority.node(NodeId::new(number).unwrap(), validity).unwrap();
            let made = match from {
                "authority" => authority.issued(validity).unwrap().certificate,
                "stranger" => stranger.issued(validity).unwrap().certificate,
                "node-1" => node(1).joined(),
                _ => node(2).joined(),
            };
            std::fs::write(at(to), made)
        };
        let files = PeerTls { authority: at("ca"), certificate: at("node"), key: at("node") };
        put("authority", "ca").unwrap();
        put("node-1", "node").unwrap();
        let node = NodeId::new(1).unwrap();
        let mut certificates =
            Certificates::read(files, node, Arc::new(SystemClock::new()), Arc::default()).unwrap();
        let end = certificates.metrics.handles.peer_certificate_end.get();
        assert_eq!(end, (1_790_000_000 + 24 * 3600 * 3650) as f64);
        assert!(!certificates.look().unwrap());
        put("stranger", "ca").unwrap();
        assert!(certificates.look().unwrap());
        assert!(!certificates.look().unwrap());
        put("node-2", "node").unwrap();
        assert!(matches!(certificates.look(), Err(CertificatesError::Tls(TlsError::Names(_)))));
        std::fs::remove_file(at("node")).unwrap();
        assert!(matches!(certificates.look(), Err(CertificatesError::Read(_))));
        put("node-1", "node").unwrap();
        assert!(certificates.look().unwrap());
    }
}
