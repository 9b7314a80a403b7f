//! The accept loop: sockets in, HTTP/2 connections served, and a way to stop.
//!
//! tonic's own `Server` is not used, for three reasons. It passes "no limit" for
//! HTTP/2 protections that a public port needs; its connection age drops calls
//! in flight instead of sending GOAWAY; and its graceful shutdown waits for
//! peers that opened a connection and never spoke. Here every setting is
//! explicit ([`Http2Settings`]), an aged connection is told to go and given time
//! to, and every wait has an end ([`Listener::serve`]).
//!
//! Plain HTTP/2 with prior knowledge, on TCP and Unix sockets at once. Clients
//! built on grpc-core or grpc-java send the percent-encoded socket path as
//! `:authority` over a Unix socket, which HTTP/2 rightly refuses with
//! PROTOCOL_ERROR; they have to set `grpc.default_authority` to `localhost`.

mod connection;
mod settings;
mod socket;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::future::poll_fn;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::{Body, Incoming};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

pub use self::connection::farewell;
pub use self::settings::{Http2Settings, ListenerSettings};
pub use self::socket::{Address, AddressError, BindError, Peer};

use self::connection::{End, Terms};
use self::socket::{Accepted, Socket};

/// What a service, or the body of its answer, may fail with.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Rest after a failed accept (most often: out of file descriptors). Trying
/// again at once would spin, because the connection stays in the backlog.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long past the drain deadline the connections' own deadlines are trusted
/// before their tasks are aborted from outside.
const DRAIN_SLACK: Duration = Duration::from_secs(1);

/// Sockets that are bound and not yet served.
#[derive(Debug)]
pub struct Listener {
    sockets: Vec<Socket>,
    settings: ListenerSettings,
    stats: Arc<ListenerStats>,
    /// Chance in [0, 1), for spreading the ages of connections.
    draw: fn() -> f64,
}

impl Listener {
    /// Binds every address, or none: the first that fails is the error.
    ///
    /// `draw` returns chance in [0, 1). Must be called within a tokio runtime.
    pub fn bind(
        addresses: &[Address],
        settings: ListenerSettings,
        draw: fn() -> f64,
    ) -> Result<Self, BindError> {
        let sockets = addresses
            .iter()
            .map(|address| Socket::bind(address, &settings))
            .collect::<Result<_, _>>()?;
        let stats = Arc::default();
        Ok(Self { sockets, settings, stats, draw })
    }

    /// The addresses bound, in the order given; port 0 is replaced by the port
    /// that the system chose.
    pub fn addresses(&self) -> Vec<Address> {
        self.sockets.iter().map(Socket::address).collect()
    }

    /// The counters; they outlive the listener.
    pub fn stats(&self) -> Arc<ListenerStats> {
        Arc::clone(&self.stats)
    }

    /// Serves until `shutdown` is cancelled, then drains and returns.
    ///
    /// Draining closes the sockets, drops connections that have not spoken yet,
    /// tells the others to go (GOAWAY) and waits for the calls in flight, at most
    /// [`ListenerSettings::drain_deadline`]; what is left then is aborted and
    /// reported. Dropping the future aborts everything at once.
    ///
    /// `service` is cloned for each call and takes hyper's body as it is:
    /// `tonic::service::Routes` boxes it anyway, and a second box costs each call.
    pub async fn serve<S, B>(self, service: S, shutdown: CancellationToken) -> Drained
    where
        S: tower::Service<Request<Incoming>, Response = Response<B>>
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
        S::Error: Into<BoxError>,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let Self { sockets, settings, stats, draw } = self;
        let terms = Arc::new(Terms::new(&settings, shutdown.clone()));
        let seats = Seats::new(&settings, stats);
        let mut connections = JoinSet::new();
        let mut accepting = Accepting { sockets, rested_at: None };
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                Some(_) = connections.join_next(), if !connections.is_empty() => {}
                Accepted { stream, peer } = accepting.next() => {
                    let Some(seat) = seats.take(peer) else { continue };
                    let age = spread(settings.age_max, draw());
                    let (terms, service) = (Arc::clone(&terms), service.clone());
                    connections.spawn(async move {
                        let end = connection::serve(stream, service, &terms, age).await;
                        seat.leave(&end);
                        end
                    });
                }
            }
        }
        drop(accepting);
        drain(connections, settings.drain_deadline).await
    }
}

/// `age` ± 10 %, so that clients that connected together do not return together.
fn spread(age: Duration, draw: f64) -> Duration {
    age.mul_f64(0.9 + 0.2 * draw.clamp(0.0, 1.0))
}

/// Waits for connections that have been told to go; each keeps the deadline by
/// itself, and one that does not is aborted.
async fn drain(mut connections: JoinSet<End>, deadline: Duration) -> Drained {
    let mut drained = Drained::default();
    let latest = Instant::now() + deadline + DRAIN_SLACK;
    while let Ok(Some(ended)) = timeout_at(latest, connections.join_next()).await {
        if let Ok(End::Aborted { calls }) = ended {
            drained.connections_aborted += 1;
            drained.calls_aborted += calls;
        }
    }
    drained.connections_aborted += connections.len();
    connections.abort_all();
    drained
}

/// What a drain had to cut off. All zero: every caller got its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Drained {
    /// Connections closed with calls still running.
    pub connections_aborted: usize,
    /// The calls that were running on them.
    pub calls_aborted: usize,
}

/// Connections since the start, by what became of them.
#[derive(Debug, Default)]
pub struct ListenerStats {
    /// Let in.
    pub accepted: AtomicU64,
    /// Open now.
    pub open: AtomicUsize,
    /// Closed on arrival, as many as allowed being open, in all or for the peer.
    pub refused: AtomicU64,
    /// Closed because the peer did not begin to speak HTTP/2 in time.
    pub silent: AtomicU64,
    /// Told to go because of their age.
    pub aged: AtomicU64,
    /// Closed with calls still running, at the end of the grace or of the drain.
    pub aborted: AtomicU64,
    /// Closed by a protocol error, a dead peer or an abuse limit.
    pub failed: AtomicU64,
    /// Times that accepting failed.
    pub accept_errors: AtomicU64,
}

/// Adds one to a counter that nothing else is ordered by.
fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

struct Accepting {
    sockets: Vec<Socket>,
    /// No accept before this instant.
    rested_at: Option<Instant>,
}

impl Accepting {
    /// The next connection on any socket. Cancelling loses none.
    async fn next(&mut self) -> Accepted {
        loop {
            if let Some(rested_at) = self.rested_at {
                sleep_until(rested_at).await;
                self.rested_at = None;
            }
            let accepted = poll_fn(|cx| {
                let mut ready = self.sockets.iter().map(|socket| socket.poll_accept(cx));
                ready.find(std::task::Poll::is_ready).unwrap_or(std::task::Poll::Pending)
            });
            match accepted.await {
                Ok(accepted) => return accepted,
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    self.rested_at = Some(Instant::now() + ACCEPT_PAUSE);
                }
            }
        }
    }
}

/// Whether an accept error says something of the one connection only.
fn is_of_one_connection(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// The bound on open connections, in all and for each peer address.
struct Seats {
    max: usize,
    per_peer_max: Option<usize>,
    stats: Arc<ListenerStats>,
    by_peer: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl Seats {
    fn new(settings: &ListenerSettings, stats: Arc<ListenerStats>) -> Self {
        Self {
            max: settings.connections_max,
            per_peer_max: settings.connections_per_peer_max,
            stats,
            by_peer: Arc::default(),
        }
    }

    /// A seat for a new connection, or none: then it is closed at once, so that
    /// the caller can turn to another instance rather than wait in the backlog.
    fn take(&self, peer: Peer) -> Option<Seat> {
        if self.max <= self.stats.open.load(Ordering::Relaxed) || !self.peer_has_room(peer) {
            count(&self.stats.refused);
            return None;
        }
        self.stats.open.fetch_add(1, Ordering::Relaxed);
        count(&self.stats.accepted);
        let stats = Arc::clone(&self.stats);
        let by_peer = self.per_peer_max.and(peer.ip()).map(|ip| (ip, Arc::clone(&self.by_peer)));
        Some(Seat { stats, by_peer })
    }

    /// Counts the connection for its peer, if there is room for it.
    fn peer_has_room(&self, peer: Peer) -> bool {
        let (Some(max), Some(ip)) = (self.per_peer_max, peer.ip()) else {
            return true;
        };
        let mut by_peer = self.by_peer.lock().unwrap_or_else(PoisonError::into_inner);
        let open = by_peer.entry(ip).or_insert(0);
        let room = *open < max;
        *open += usize::from(room);
        room
    }
}

/// Connections open, by the peer's address.
type ByPeer = Arc<Mutex<HashMap<IpAddr, usize>>>;

/// One open connection, as counted; counted off when dropped, panics included.
struct Seat {
    stats: Arc<ListenerStats>,
    by_peer: Option<(IpAddr, ByPeer)>,
}

impl Seat {
    fn leave(self, end: &End) {
        match end {
            End::Closed { aged: true } => count(&self.stats.aged),
            End::Closed { aged: false } => {}
            End::Silent => count(&self.stats.silent),
            End::Aborted { .. } => count(&self.stats.aborted),
            End::Failed(error) => {
                tracing::debug!(%error, "connection failed");
                count(&self.stats.failed);
            }
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.stats.open.fetch_sub(1, Ordering::Relaxed);
        let Some((ip, by_peer)) = &self.by_peer else {
            return;
        };
        let mut by_peer = by_peer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = by_peer.get_mut(ip) {
            *open -= 1;
            if *open == 0 {
                by_peer.remove(ip);
            }
        }
    }
}
