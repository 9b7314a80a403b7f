//! A TCP proxy that breaks things on demand.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, watch},
    task::{JoinHandle, JoinSet},
    time::{Instant, sleep_until, timeout},
};

use super::{PATIENCE, address};

/// What is wrong with the connections, new and old.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// Requests arrive this much later, in order.
    DelayRequests(Duration),
    /// Answers do.
    DelayReplies(Duration),
    /// Connections open and stay open, and nothing gets through. What was held
    /// back goes on when the fault ends, however late that is.
    HalfOpen,
    /// Requests get through; the answer is dropped, and the connection with it.
    SwallowReplies,
    /// The next answer is; then nothing is wrong any more.
    SwallowNextReply,
    /// So many bytes of requests get through, of all connections together;
    /// then the one that asks for more is cut, and nothing is wrong any more.
    CutRequestsAfter(u64),
    /// The same for answers.
    CutRepliesAfter(u64),
    /// Nobody listens, and what was connected is cut.
    Refuse,
}

/// What has gone through, from the beginning.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections that were accepted.
    pub accepted: u64,
    /// Connections that are open now.
    pub open: u64,
    /// Bytes of requests that the server was sent.
    pub requested: u64,
    /// Bytes of answers that clients were sent.
    pub replied: u64,
    /// Answers that were dropped.
    pub swallowed: u64,
}

/// A TCP proxy before one server. It ends, and its connections with it, when
/// it is dropped.
pub struct Proxy {
    address: SocketAddr,
    fault: watch::Sender<Fault>,
    shared: Arc<Shared>,
    upstream: watch::Sender<SocketAddr>,
    listening: watch::Receiver<bool>,
    listener: JoinHandle<()>,
}

impl Proxy {
    /// Listens, and passes everything on to `upstream`, which need not be there
    /// yet.
    pub async fn start(upstream: SocketAddr) -> Self {
        let address = address::fresh();
        let (fault, faults) = watch::channel(Fault::None);
        let (listening, listens) = watch::channel(false);
        let shared = Arc::new(Shared {
            fault: fault.clone(),
            counts: watch::Sender::new(Counts::default()),
            order: Mutex::new(()),
        });
        let (leads, upstream) = watch::channel(upstream);
        let gate = Gate { address, upstream, shared: Arc::clone(&shared), faults };
        let listener = tokio::spawn(gate.keep(listening));
        let proxy = Self { address, fault, shared, upstream: leads, listening: listens, listener };
        proxy.listens(true).await;
        proxy
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Breaks something, or everything is well again. It is so when this
    /// returns, for old connections and new ones.
    pub async fn set(&self, fault: Fault) {
        {
            let _order = self.shared.order();
            self.fault.send_replace(fault);
        }
        self.listens(fault != Fault::Refuse).await;
    }

    /// Leads to another server from now on; what was connected is cut.
    pub async fn lead_to(&self, upstream: SocketAddr) {
        self.set(Fault::Refuse).await;
        self.upstream.send_replace(upstream);
        self.set(Fault::None).await;
    }

    /// What has gone through.
    pub fn counts(&self) -> Counts {
        *self.shared.counts.borrow()
    }

    /// Waits until what has gone through is enough.
    pub async fn until(&self, enough: impl FnMut(&Counts) -> bool) -> Counts {
        let mut counts = self.shared.counts.subscribe();
        let counted = timeout(PATIENCE, counts.wait_for(enough)).await;
        *counted.unwrap_or_else(|_| panic!("only {:?} went through", self.counts())).unwrap()
    }

    async fn listens(&self, listens: bool) {
        let mut listening = self.listening.clone();
        let changed = timeout(PATIENCE, listening.wait_for(|now| *now == listens)).await;
        changed.expect("a proxy opens and closes its port").unwrap();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

/// What all connections share.
struct Shared {
    fault: watch::Sender<Fault>,
    counts: watch::Sender<Counts>,
    /// Held while a fault is looked at and, where it counts, changed.
    order: Mutex<()>,
}

/// What becomes of bytes that have arrived.
enum Passage {
    /// They go on, after this long.
    After(Duration),
    /// So many go on, and the connection ends.
    CutTo(usize),
}

impl Shared {
    fn order(&self) -> MutexGuard<'_, ()> {
        self.order.lock().unwrap()
    }

    fn count(&self, count: impl FnOnce(&mut Counts)) {
        self.counts.send_modify(count);
    }

    /// What becomes of `length` bytes, by the fault of this moment.
    fn passage(&self, way: Way, length: usize) -> Passage {
        let _order = self.order();
        let fault = *self.fault.borrow();
        match (fault, way) {
            (Fault::DelayRequests(delay), Way::Request)
            | (Fault::DelayReplies(delay), Way::Reply) => Passage::After(delay),
            (Fault::SwallowReplies | Fault::SwallowNextReply, Way::Reply) => {
                self.count(|counts| counts.swallowed += 1);
                if fault == Fault::SwallowNextReply {
                    self.fault.send_replace(Fault::None);
                }
                Passage::CutTo(0)
            }
            (Fault::CutRequestsAfter(left), Way::Request) => {
                self.cut(left, length, Fault::CutRequestsAfter)
            }
            (Fault::CutRepliesAfter(left), Way::Reply) => {
                self.cut(left, length, Fault::CutRepliesAfter)
            }
            _ => Passage::After(Duration::ZERO),
        }
    }

    fn cut(&self, left: u64, length: usize, rest: fn(u64) -> Fault) -> Passage {
        match left.checked_sub(length as u64) {
            Some(left) => {
                self.fault.send_replace(rest(left));
                Passage::After(Duration::ZERO)
            }
            None => {
                self.fault.send_replace(Fault::None);
                Passage::CutTo(usize::try_from(left).expect("less than what has arrived"))
            }
        }
    }
}

/// The port, and whoever comes in by it.
struct Gate {
    address: SocketAddr,
    upstream: watch::Receiver<SocketAddr>,
    shared: Arc<Shared>,
    faults: watch::Receiver<Fault>,
}

impl Gate {
    /// Opens and closes the port as the fault wants it. Connections end when
    /// it closes, and when this is dropped.
    async fn keep(mut self, listening: watch::Sender<bool>) {
        loop {
            let listener = TcpListener::bind(self.address).await.unwrap();
            listening.send_replace(true);
            let mut connections = JoinSet::new();
            let mut faults = self.faults.clone();
            tokio::select! {
                never = self.admit(&listener, &mut connections) => match never {},
                refusing = faults.wait_for(|fault| *fault == Fault::Refuse) => {
                    if refusing.is_err() { return; }
                }
            }
            drop(listener);
            connections.shutdown().await;
            listening.send_replace(false);
            if self.faults.wait_for(|fault| *fault != Fault::Refuse).await.is_err() {
                return;
            }
        }
    }

    async fn admit(&self, listener: &TcpListener, connections: &mut JoinSet<()>) -> Infallible {
        loop {
            let (client, _) = listener.accept().await.unwrap();
            let open = Open::new(Arc::clone(&self.shared));
            let (upstream, faults) = (*self.upstream.borrow(), self.faults.clone());
            connections.spawn(async move {
                // A server that is not there ends the connection, as does
                // either side.
                let _ = relay(client, upstream, &open.0, faults).await;
            });
            while connections.try_join_next().is_some() {}
        }
    }
}

/// Counts a connection as open while it is.
struct Open(Arc<Shared>);

impl Open {
    fn new(shared: Arc<Shared>) -> Self {
        shared.count(|counts| {
            counts.accepted += 1;
            counts.open += 1;
        });
        Self(shared)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.count(|counts| counts.open -= 1);
    }
}

#[derive(Clone, Copy)]
enum Way {
    Request,
    Reply,
}

/// Carries both ways until either ends.
async fn relay(
    client: TcpStream,
    upstream: SocketAddr,
    shared: &Shared,
    faults: watch::Receiver<Fault>,
) -> io::Result<()> {
    let server = TcpStream::connect(upstream).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::select! {
        ended = carry(Way::Request, from_client, to_server, shared, faults.clone()) => ended,
        ended = carry(Way::Reply, from_server, to_client, shared, faults) => ended,
    }
}

/// Carries one way. Reading goes on while what was read waits for its time, so
/// that a delay is one, and no bound on what gets through.
async fn carry(
    way: Way,
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
    shared: &Shared,
    faults: watch::Receiver<Fault>,
) -> io::Result<()> {
    let (queue, queued) = mpsc::unbounded_channel();
    let read = async {
        read(way, from, queue, shared, faults).await;
        Ok(())
    };
    tokio::try_join!(read, write(way, to, queued, shared)).map(|_| ())
}

/// Bytes, and when they go on.
type Queued = (Instant, Vec<u8>);

/// Ends with the connection, or where it is to be cut.
async fn read(
    way: Way,
    mut from: OwnedReadHalf,
    queue: mpsc::UnboundedSender<Queued>,
    shared: &Shared,
    mut faults: watch::Receiver<Fault>,
) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let length = from.read(&mut buffer).await.unwrap_or(0);
        let gone = faults.wait_for(|fault| *fault != Fault::HalfOpen).await.is_err();
        if length == 0 || gone {
            return;
        }
        let (delay, length, last) = match shared.passage(way, length) {
            Passage::After(delay) => (delay, length, false),
            Passage::CutTo(length) => (Duration::ZERO, length, true),
        };
        let queued = queue.send((Instant::now() + delay, buffer[..length].to_vec()));
        if last || queued.is_err() {
            return;
        }
    }
}

/// Ends when what was read is written.
async fn write(
    way: Way,
    mut to: OwnedWriteHalf,
    mut queued: mpsc::UnboundedReceiver<Queued>,
    shared: &Shared,
) -> io::Result<()> {
    while let Some((at, bytes)) = queued.recv().await {
        sleep_until(at).await;
        to.write_all(&bytes).await?;
        let length = bytes.len() as u64;
        shared.count(|counts| match way {
            Way::Request => counts.requested += length,
            Way::Reply => counts.replied += length,
        });
    }
    Ok(())
}
