//! Addresses that nobody else has.

use std::{
    net::{Ipv4Addr, SocketAddr},
    process,
    sync::atomic::{AtomicU16, Ordering},
};

/// Below the ports that connections are given, and leaves room for a Cluster's
/// second port, which is 10000 higher.
static NEXT_PORT: AtomicU16 = AtomicU16::new(6379);

/// This process's part of the loopback network, by its id.
///
/// Tests run side by side, in several processes; with an address of its own a
/// server finds its port free, also when it comes back to it.
pub fn host() -> Ipv4Addr {
    let [_, high, middle, low] = process::id().to_be_bytes();
    Ipv4Addr::new(127, high % 128 + 16, middle, low)
}

/// An address on [`host`] that was not given out before.
pub fn fresh() -> SocketAddr {
    SocketAddr::from((host(), NEXT_PORT.fetch_add(1, Ordering::Relaxed)))
}
