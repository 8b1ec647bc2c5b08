//! A service's nodes, as its SRV records name them: `host:port` each, asked anew each time.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use hickory_resolver::{
    Resolver, TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolverConfig},
    net::runtime::TokioRuntimeProvider,
    proto::rr::RData,
};

/// How long a server is given to answer, and how often it is asked.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
const ATTEMPTS: usize = 2;

/// A service has so many nodes at the most: what else a directory names is not read.
const NODES_MAX: usize = 64;

/// Why nobody is named.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// What the machine says of its name servers cannot be read, or makes no resolver.
    #[error("no resolver: {0}")]
    Resolver(String),
    /// No answer, or one without records.
    #[error("the SRV records of {name}: {why}")]
    Records {
        /// The service.
        name: String,
        /// What was wrong.
        why: String,
    },
}

/// A service whose nodes are looked up.
pub struct Service {
    name: String,
    resolver: TokioResolver,
}

impl Service {
    /// The service of this name, asked of `server`, or of whom the machine asks.
    pub fn new(name: String, server: Option<SocketAddr>) -> Result<Self, ServiceError> {
        let failed = |error: hickory_resolver::net::NetError| ServiceError::Resolver(error.to_string());
        let mut builder = match server {
            None => Resolver::builder_tokio().map_err(failed)?,
            Some(server) => Resolver::builder_with_config(asked_of(server), TokioRuntimeProvider::default()),
        };
        let options = builder.options_mut();
        (options.timeout, options.attempts) = (ANSWER_LIMIT, ATTEMPTS);
        // Records change while nodes come and go.
        options.cache_size = 0;
        Ok(Self { name, resolver: builder.build().map_err(failed)? })
    }

    /// Who is named now.
    pub async fn look(&self) -> Result<BTreeSet<String>, ServiceError> {
        let found = self.resolver.srv_lookup(self.name.as_str()).await;
        let found = found.map_err(|error| ServiceError::Records {
            name: self.name.clone(),
            why: if error.is_no_records_found() { "there are none".to_owned() } else { error.to_string() },
        })?;
        let nodes = found.answers().iter().filter_map(|record| match &record.data {
            RData::SRV(record) => {
                let host = record.target.to_utf8().to_ascii_lowercase();
                Some(format!("{}:{}", host.trim_end_matches('.'), record.port))
            }
            _ => None,
        });
        Ok(nodes.take(NODES_MAX).collect())
    }
}

fn asked_of(server: SocketAddr) -> ResolverConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = server.port();
        connection
    });
    let server = NameServerConfig::new(server.ip(), true, connections.into());
    ResolverConfig::from_name_servers(vec![server])
}
