//! A cluster's authority: makes the certificates by which nodes prove themselves to each other ([`super::tls`]).
//!
//! One name, one key: who has the key signs for the cluster. A key that was kept makes an authority that says the same of itself, so
//! that nodes which come later are signed by the one that the others know.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};
use varve_common::NodeId;

use super::tls::NAME;

/// A day before it was made: clocks of nodes differ.
const EARLIER: Duration = Duration::from_hours(24);

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
#[error("certificates: {0}")]
pub struct AuthorityError(#[from] rcgen::Error);

/// From when to when a certificate is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// Seconds since 1970, now.
    pub now: u64,
    /// How long.
    pub span: Duration,
}

impl Validity {
    fn set(self, params: &mut CertificateParams) {
        let epoch = params.not_before.replace_year(1970).expect("every year has its first of January");
        let epoch = epoch.replace_ordinal(1).expect("every year has a first day");
        let epoch = epoch.replace_time(epoch.time().replace_hour(0).expect("days begin at 0"));
        let now = Duration::from_secs(self.now);
        params.not_before = epoch + now.saturating_sub(EARLIER);
        params.not_after = epoch + now + self.span;
    }
}

/// Who signs for one cluster.
pub struct Authority {
    key: KeyPair,
}

/// A certificate and its key, as PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// The certificate.
    pub certificate: String,
    /// The key.
    pub key: String,
}

impl Issued {
    /// Both, as one file may hold them.
    #[must_use]
    pub fn joined(&self) -> String {
        format!("{}{}", self.certificate, self.key)
    }
}

impl Authority {
    /// A new one.
    pub fn new() -> Result<Self, AuthorityError> {
        Ok(Self { key: KeyPair::generate()? })
    }

    /// The one whose key this is, as PEM.
    pub fn of_key(key: &str) -> Result<Self, AuthorityError> {
        Ok(Self { key: KeyPair::from_pem(key)? })
    }

    /// Its own certificate and key.
    pub fn issued(&self, validity: Validity) -> Result<Issued, AuthorityError> {
        let mut params = Self::params();
        validity.set(&mut params);
        let certificate = params.self_signed(&self.key)?.pem();
        Ok(Issued { certificate, key: self.key.serialize_pem() })
    }

    /// A node's.
    pub fn node(&self, node: NodeId, validity: Validity) -> Result<Issued, AuthorityError> {
        let mut params = CertificateParams::new([NAME.to_owned(), format!("node-{node}.{NAME}")])?;
        validity.set(&mut params);
        params.distinguished_name = named(&format!("varve node {node}"));
        params.is_ca = IsCa::ExplicitNoCa;
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &Issuer::new(Self::params(), &self.key))?.pem();
        Ok(Issued { certificate, key: key.serialize_pem() })
    }

    fn params() -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name = named("varve cluster authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params
    }
}

fn named(name: &str) -> DistinguishedName {
    let mut named = DistinguishedName::new();
    named.push(DnType::CommonName, name);
    named
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_of_a_kept_key_signs_what_the_first_is_known_for() {
        let validity = Validity { now: 1_800_000_000, span: Duration::from_hours(24) };
        let first = Authority::new().unwrap().issued(validity).unwrap();
        let again = Authority::of_key(&first.key).unwrap();
        assert_eq!(again.issued(validity).unwrap().key, first.key);
        let node = again.node(NodeId::new(7).unwrap(), validity).unwrap();
        let ends = super::super::expiry::all(node.joined().as_bytes());
        assert_eq!(ends, [1_800_000_000 + 24 * 3600]);
        assert!(Authority::of_key("nothing").is_err());
    }
}
