//! What this node proves itself by among the others, and its files as they change.

use std::{sync::Arc, time::Duration};

use varve_common::{Clock, NodeId};

use crate::{
    config::{PeerPem, PeerTls, PeerTlsError},
    peers::{
        Plain, Security, Tls,
        tls::{Pem, TlsError},
    },
};

/// How often the files are looked at.
const INTERVAL: Duration = Duration::from_secs(30);

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
}

impl Certificates {
    /// Reads the files of this node.
    pub fn read(files: PeerTls, node: NodeId, clock: Arc<dyn Clock>) -> Result<Self, CertificatesError> {
        let used = files.read()?;
        let tls = Arc::new(Tls::new(node, Arc::clone(&clock), pem(&used))?);
        Ok(Self { files, used, tls, clock })
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
        Ok(true)
    }
}

fn pem(files: &PeerPem) -> Pem<'_> {
    Pem { authority: &files.authority, certificate: &files.certificate, key: &files.key }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::clock::SystemClock;

    const DIRECTORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/peers/tests/certificates");

    #[test]
    #[allow(clippy::disallowed_methods, reason = "the test is the other program that writes them")]
    fn files_that_change_are_taken_and_what_does_not_fit_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let put = |from: &str, to: &str| std::fs::copy(format!("{DIRECTORY}/{from}.pem"), at(to)).map(drop);
        let files = PeerTls { authority: at("ca"), certificate: at("node"), key: at("node") };
        put("authority", "ca").unwrap();
        put("node-1", "node").unwrap();
        let node = NodeId::new(1).unwrap();
        let mut certificates = Certificates::read(files, node, Arc::new(SystemClock::new())).unwrap();
        assert!(!certificates.look().unwrap());
        put("stranger", "ca").unwrap();
        assert!(certificates.look().unwrap());
        assert!(!certificates.look().unwrap());
        put("node-2", "node").unwrap();
        assert!(matches!(certificates.look(), Err(CertificatesError::Tls(TlsError::Names(_)))));
        std::fs::remove_file(at("node")).unwrap();
        assert!(matches!(certificates.look(), Err(CertificatesError::Read(_))));
        put("node-1", "node").unwrap();
        assert!(!certificates.look().unwrap());
    }
}
