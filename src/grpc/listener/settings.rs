//! What the listener holds its peers to.

use std::time::Duration;

use hyper::server::conn::http2;
use hyper_util::rt::TokioTimer;

/// Bounds of the accept loop and of each connection's life.
#[derive(Debug, Clone)]
pub struct ListenerSettings {
    /// Bounds within one connection.
    pub http2: Http2Settings,
    /// Connections open at once in this process. One more is closed on arrival.
    pub connections_max: usize,
    /// The same for one peer IP address; absent means no bound of its own. Set it
    /// where callers connect directly: behind a proxy all share one address.
    pub connections_per_peer_max: Option<usize>,
    /// Time a new peer has to send the HTTP/2 preface.
    pub preface_wait: Duration,
    /// Age, ± 10 %, at which a connection is told to go, so that clients spread
    /// over instances that came later.
    pub age_max: Duration,
    /// Time the calls of an aged connection have to finish.
    pub age_grace: Duration,
    /// Time the calls in flight have to finish when the process stops.
    pub drain_deadline: Duration,
    /// How long a connection that was told to go may stay without a call. Longer
    /// than a round trip: a call sent before GOAWAY arrived is still served.
    pub goaway_patience: Duration,
    /// Permission bits of a Unix socket's file.
    pub socket_mode: u32,
    /// Whether addresses other than loopback and Unix sockets may be bound.
    pub insecure: bool,
}

impl Default for ListenerSettings {
    fn default() -> Self {
        Self {
            http2: Http2Settings::default(),
            connections_max: 4096,
            connections_per_peer_max: None,
            preface_wait: Duration::from_secs(10),
            age_max: Duration::from_secs(15 * 60),
            age_grace: Duration::from_secs(30),
            drain_deadline: Duration::from_secs(20),
            goaway_patience: Duration::from_secs(1),
            socket_mode: 0o660,
            insecure: false,
        }
    }
}

/// What one HTTP/2 connection may make the process keep or do. Sizes in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Http2Settings {
    /// Calls in flight on one connection; more wait at the client.
    pub concurrent_streams_max: u32,
    /// Streams we reset for a peer's protocol errors before the connection is
    /// closed (RUSTSEC-2024-0003).
    pub local_error_resets_max: usize,
    /// Streams a peer may reset before we have looked at them (rapid reset,
    /// CVE-2023-44487) before the connection is closed.
    pub pending_resets_max: usize,
    /// All headers of one call together.
    pub header_list_max: u32,
    /// Longest frame we accept.
    pub frame_max: u32,
    /// Unread request bytes on one call.
    pub stream_window: u32,
    /// Unread request bytes on one connection.
    pub connection_window: u32,
    /// Answer bytes kept for one call that its client does not read.
    pub send_buffer_max: usize,
    /// Silence after which a peer is asked whether it is there.
    pub keepalive_interval: Duration,
    /// Silence after that question which ends the connection.
    pub keepalive_wait: Duration,
}

impl Default for Http2Settings {
    fn default() -> Self {
        Self {
            concurrent_streams_max: 128,
            local_error_resets_max: 1024,
            pending_resets_max: 20,
            header_list_max: 8 * 1024,
            frame_max: 16 * 1024,
            stream_window: 64 * 1024,
            connection_window: 256 * 1024,
            send_buffer_max: 400 * 1024,
            keepalive_interval: Duration::from_secs(30),
            keepalive_wait: Duration::from_secs(10),
        }
    }
}

impl Http2Settings {
    /// A connection builder with every setting given, none left to a default
    /// underneath: those have changed between versions, and some mean no limit.
    pub(super) fn builder<E>(&self, executor: E) -> http2::Builder<E>
    where
        E: Clone,
    {
        // Taken apart by name: a setting added and not passed on is a warning.
        let Self {
            concurrent_streams_max,
            local_error_resets_max,
            pending_resets_max,
            header_list_max,
            frame_max,
            stream_window,
            connection_window,
            send_buffer_max,
            keepalive_interval,
            keepalive_wait,
        } = *self;
        let mut builder = http2::Builder::new(executor);
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(concurrent_streams_max)
            .max_local_error_reset_streams(local_error_resets_max)
            .max_pending_accept_reset_streams(pending_resets_max)
            .max_header_list_size(header_list_max)
            .max_frame_size(frame_max)
            .adaptive_window(false)
            .initial_stream_window_size(stream_window)
            .initial_connection_window_size(connection_window)
            .max_send_buf_size(send_buffer_max)
            .keep_alive_interval(keepalive_interval)
            .keep_alive_timeout(keepalive_wait)
            // gRPC has no use for it, and every answer would carry it.
            .auto_date_header(false);
        builder
    }
}
