//! Settings as types.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use crate::{
    grpc::{admission::AdmissionSettings, listener::Address},
    store::embedded::log::Fsync,
};

/// Everything an operator can set.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the service listens.
    pub listen: Vec<Address>,
    /// Permission bits of the Unix socket's file.
    pub socket_mode: u32,
    /// Whether addresses other than loopback may be bound.
    pub insecure: bool,
    /// How long calls in flight may take when the server stops.
    pub drain: Duration,
    /// Whether tools may ask for the contract.
    pub reflection: bool,
    /// Connections at most.
    pub connections_max: usize,
    /// Where metrics and probes are served; None is nowhere.
    pub metrics: Option<SocketAddr>,
    /// Where data is kept.
    pub store: StoreSettings,
    /// The file of policies that is applied.
    pub policy_file: Option<PathBuf>,
    /// How many calls are let in.
    pub admission: AdmissionSettings,
}

/// Where data is kept.
#[derive(Clone, Debug)]
pub enum StoreSettings {
    /// Nowhere: it ends with the process.
    Memory,
    /// In this process, durable.
    Embedded {
        /// The directory.
        dir: PathBuf,
        /// When a change is durable.
        fsync: Fsync,
        /// Bytes at most on the disk; None is no bound but the disk's.
        size_max: Option<u64>,
    },
}
