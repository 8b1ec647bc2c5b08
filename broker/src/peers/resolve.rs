//! Names to addresses, anew at each dial: nodes move. One question a name at a time, because a resolver that hangs holds a thread
//! for each.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use futures_util::{
    FutureExt as _,
    future::{BoxFuture, Shared},
};
use tokio::net::lookup_host;

use super::limits::ADDRESSES_MAX;

type Found = Result<Arc<[SocketAddr]>, io::ErrorKind>;

/// The questions that are open.
#[derive(Clone, Default)]
pub struct Resolver {
    open: Arc<Mutex<BTreeMap<String, Shared<BoxFuture<'static, Found>>>>>,
}

impl Resolver {
    /// The addresses of `host:port`, none of them twice; never empty.
    pub async fn resolve(&self, name: &str) -> Found {
        if let Ok(address) = name.parse::<SocketAddr>() {
            return Ok(Arc::new([address]));
        }
        self.ask(name).await
    }

    fn ask(&self, name: &str) -> Shared<BoxFuture<'static, Found>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(question) = open.get(name) {
            return question.clone();
        }
        let (own, resolver) = (name.to_owned(), self.clone());
        // A task of its own: whoever asks may lose patience, and the next to ask waits for the same answer.
        let task = tokio::spawn(async move {
            let found = look_up(&own).await;
            resolver.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&own);
            found
        });
        let question = task.map(|done| done.unwrap_or(Err(io::ErrorKind::Interrupted))).boxed().shared();
        open.insert(name.to_owned(), question.clone());
        question
    }
}

async fn look_up(name: &str) -> Found {
    let found = lookup_host(name).await.map_err(|error| error.kind())?;
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for address in found {
        if !addresses.contains(&address) && addresses.len() < ADDRESSES_MAX {
            addresses.push(address);
        }
    }
    if addresses.is_empty() { Err(io::ErrorKind::NotFound) } else { Ok(addresses.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn names_and_addresses_are_found_and_nothing_stays_open() {
        let resolver = Resolver::default();
        let literal = resolver.resolve("127.0.0.1:9").await.unwrap();
        assert_eq!(*literal, ["127.0.0.1:9".parse().unwrap()]);
        let (one, other) = tokio::join!(resolver.resolve("localhost:9"), resolver.resolve("localhost:9"));
        assert!(one.unwrap().contains(&"127.0.0.1:9".parse().unwrap()) && other.is_ok());
        assert!(resolver.resolve("no port here").await.is_err());
        assert!(resolver.open.lock().unwrap().is_empty());
    }
}
