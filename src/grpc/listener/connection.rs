//! The life of one connection: preface, calls, GOAWAY, end.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::rt::Executor;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;
use tower::util::Oneshot;

use super::socket::Stream;
use super::{BoxError, Http2Settings, ListenerSettings};

/// Length of `PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n`, which opens every connection.
const PREFACE_LEN: usize = 24;

/// What all connections of a listener have in common.
pub(super) struct Terms {
    http2: Http2Settings,
    preface_wait: Duration,
    age_grace: Duration,
    drain_deadline: Duration,
    goaway_patience: Duration,
    drain: CancellationToken,
}

impl Terms {
    pub fn new(settings: &ListenerSettings, drain: CancellationToken) -> Self {
        Self {
            http2: settings.http2,
            preface_wait: settings.preface_wait,
            age_grace: settings.age_grace,
            drain_deadline: settings.drain_deadline,
            goaway_patience: settings.goaway_patience,
            drain,
        }
    }
}

/// How a connection ended.
#[derive(Debug)]
pub(super) enum End {
    /// By agreement, or because it had nothing left to do.
    Closed {
        /// Whether its age was the reason.
        aged: bool,
    },
    /// The peer never sent the preface.
    Silent,
    /// Time was up with calls still running.
    Aborted { calls: usize },
    /// A protocol error, a dead peer or an abuse limit.
    Failed(hyper::Error),
}

/// Why a connection is told to go.
#[derive(PartialEq)]
enum Farewell {
    Age,
    Drain,
}

/// Serves one connection to its end. Returning drops it, and with it the calls
/// that still run: their futures are dropped, unless they have arranged
/// otherwise.
pub(super) async fn serve<S, B>(stream: Stream, service: S, terms: &Terms, age: Duration) -> End
where
    S: tower::Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let spoken = Arc::new(AtomicBool::new(false));
    let calls = Calls::default();
    let wire = Wire { stream, preface_left: PREFACE_LEN, spoken: Arc::clone(&spoken) };
    let connection =
        terms.http2.builder(calls.clone()).serve_connection(TokioIo::new(wire), Called(service));
    let mut connection = pin!(connection);

    // One timer for both: the wait for the preface, then the age.
    let born_at = Instant::now();
    let mut timer = pin!(sleep_until(born_at + terms.preface_wait.min(age)));
    let farewell = loop {
        tokio::select! {
            biased;
            ended = connection.as_mut() => return ended_by_itself(ended, false),
            () = terms.drain.cancelled() => break Farewell::Drain,
            () = timer.as_mut() => {
                if !spoken.load(Ordering::Relaxed) {
                    return End::Silent;
                }
                if born_at + age <= timer.deadline() {
                    break Farewell::Age;
                }
                timer.as_mut().reset(born_at + age);
            }
        }
    };
    // hyper would hold the GOAWAY back until the peer speaks, if it ever does.
    if !spoken.load(Ordering::Relaxed) {
        return End::Silent;
    }
    calls.farewell.cancel();
    connection.as_mut().graceful_shutdown();
    see_off(connection, &calls, terms, farewell).await
}

/// Polls a connection that was told to go until it is gone, has been without a
/// call for a while, or its time is up.
async fn see_off(
    mut connection: Pin<&mut impl Future<Output = hyper::Result<()>>>,
    calls: &Calls,
    terms: &Terms,
    farewell: Farewell,
) -> End {
    let aged = farewell == Farewell::Age;
    let mut draining = !aged;
    let grace = if aged { terms.age_grace } else { terms.drain_deadline };
    let mut close_at = Instant::now() + grace;
    let mut seen = None;
    loop {
        let patience = terms.goaway_patience.min(close_at - Instant::now());
        tokio::select! {
            biased;
            ended = connection.as_mut() => return ended_by_itself(ended, aged),
            () = terms.drain.cancelled(), if !draining => {
                draining = true;
                close_at = close_at.min(Instant::now() + terms.drain_deadline);
            }
            () = sleep(patience) => {
                // The same count twice: since the last look nothing was running,
                // and what had been answered has had the time to leave.
                let idle = calls.idle_since(&mut seen);
                match calls.running() {
                    0 if idle || close_at <= Instant::now() => return End::Closed { aged },
                    calls if close_at <= Instant::now() => return End::Aborted { calls },
                    _ => {}
                }
            }
        }
    }
}

fn ended_by_itself(ended: hyper::Result<()>, aged: bool) -> End {
    match ended {
        Ok(()) => End::Closed { aged },
        Err(error) => End::Failed(error),
    }
}

tokio::task_local! {
    /// Cancelled when the connection of the call that runs is told to go. With the
    /// task and not with the request: that would cost each call three allocations.
    static FAREWELL: CancellationToken;
}

/// Cancelled when the connection of the call that runs here is told to go: an
/// answer that has no end of its own is to come to one. Never outside of a call.
pub fn farewell() -> CancellationToken {
    FAREWELL.try_with(CancellationToken::clone).unwrap_or_default()
}

/// Runs the calls of one connection as tasks, and counts them: a call runs until
/// the last byte of its answer has been handed to the connection.
#[derive(Clone, Default)]
struct Calls {
    running: TaskTracker,
    started: Arc<AtomicU64>,
    /// Cancelled when the connection is told to go.
    farewell: CancellationToken,
}

impl Calls {
    fn running(&self) -> usize {
        self.running.len()
    }

    /// Whether no call runs, and none has since the last time this was so.
    fn idle_since(&self, seen: &mut Option<u64>) -> bool {
        let now = (self.running() == 0).then(|| self.started.load(Ordering::Relaxed));
        let before = std::mem::replace(seen, now);
        now.is_some() && now == before
    }
}

impl<F> Executor<F> for Calls
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, call: F) {
        self.started.fetch_add(1, Ordering::Relaxed);
        self.running.spawn(FAREWELL.scope(self.farewell.clone(), call));
    }
}

/// The service as hyper calls it.
struct Called<S>(S);

impl<S> hyper::service::Service<Request<Incoming>> for Called<S>
where
    S: tower::Service<Request<Incoming>> + Clone,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Oneshot<S, Request<Incoming>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.0.clone().oneshot(request)
    }
}

/// The stream, noting whether the peer has spoken: hyper does not say, and a
/// connection that waits for the preface cannot be told to go.
struct Wire {
    stream: Stream,
    /// Bytes of the preface that have not come yet.
    preface_left: usize,
    spoken: Arc<AtomicBool>,
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.preface_left == 0 {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let read = buf.filled().len() - before;
        self.preface_left = self.preface_left.saturating_sub(read);
        if self.preface_left == 0 {
            self.spoken.store(true, Ordering::Relaxed);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
