//! Who may connect: a bound on all connections and one per address.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

/// The connections that there are.
#[derive(Debug)]
pub struct Admission {
    total_max: usize,
    per_address_max: usize,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    total: usize,
    addresses: BTreeMap<IpAddr, usize>,
}

/// Leave to connect; gives its place back when dropped.
#[derive(Debug)]
pub struct Admitted {
    admission: Arc<Admission>,
    address: IpAddr,
}

/// Why a connection was turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There are enough in all.
    Total,
    /// There are enough from this address.
    Address,
}

impl Refused {
    /// What the log and the metrics call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Total => "too many connections",
            Self::Address => "too many connections from one address",
        }
    }
}

impl Admission {
    /// Nobody is connected yet.
    pub fn new(total_max: usize, per_address_max: usize) -> Arc<Self> {
        Arc::new(Self { total_max, per_address_max, counts: Mutex::default() })
    }

    /// Lets a connection in, if there is room.
    pub fn admit(self: &Arc<Self>, address: IpAddr) -> Result<Admitted, Refused> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.total >= self.total_max {
            return Err(Refused::Total);
        }
        let from_address = counts.addresses.entry(address).or_default();
        if *from_address >= self.per_address_max {
            return Err(Refused::Address);
        }
        *from_address += 1;
        counts.total += 1;
        Ok(Admitted { admission: Arc::clone(self), address })
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut counts = self.admission.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.total -= 1;
        if let Some(count) = counts.addresses.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.addresses.remove(&self.address);
            }
        }
    }
}
