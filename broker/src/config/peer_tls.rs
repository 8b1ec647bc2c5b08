//! What this node proves itself by among the others: three files, all or none.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::{ConfigError, Reader};

const KEYS: [&str; 3] = ["peer.tls.ca", "peer.tls.certificate", "peer.tls.key"];

/// Where the files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerTls {
    /// The cluster's authority.
    pub authority: PathBuf,
    /// This node's certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// What is in them.
#[derive(Clone, PartialEq, Eq)]
pub struct PeerPem {
    /// The cluster's authority.
    pub authority: Vec<u8>,
    /// This node's certificate.
    pub certificate: Vec<u8>,
    /// Its key.
    pub key: Vec<u8>,
}

/// A file that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {source}")]
pub struct PeerTlsError {
    /// Which.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

impl PeerTls {
    /// Reads the files, as they are now.
    pub fn read(&self) -> Result<PeerPem, PeerTlsError> {
        Ok(PeerPem {
            authority: read(&self.authority)?,
            certificate: read(&self.certificate)?,
            key: read(&self.key)?,
        })
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "other programs write these files, and this one may only read them"
)]
fn read(path: &Path) -> Result<Vec<u8>, PeerTlsError> {
    std::fs::read(path).map_err(|source| PeerTlsError { path: path.to_owned(), source })
}

impl Reader<'_> {
    pub(super) fn peer_tls(&self) -> Result<Option<PeerTls>, ConfigError> {
        let [authority, certificate, key] = KEYS.map(|name| self.text(name));
        let missing = KEYS.into_iter().find(|name| self.text(name).is_empty());
        match missing {
            None => Ok(Some(PeerTls {
                authority: authority.into(),
                certificate: certificate.into(),
                key: key.into(),
            })),
            Some(_) if KEYS.iter().all(|name| self.text(name).is_empty()) => Ok(None),
            Some(name) => Err(self.invalid(name, format!("all or none: {}", KEYS.join(", ")))),
        }
    }
}
