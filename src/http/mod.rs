//! Plain HTTP beside the service: metrics and probes.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::{Router, extract::State, http::StatusCode, response::IntoResponse, routing::get};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// What the endpoints show.
#[derive(Clone)]
pub struct Shown {
    /// The metrics, as text.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
    /// Whether calls can be decided.
    pub ready: Arc<AtomicBool>,
}

/// A bound endpoint.
#[derive(Debug)]
pub struct Endpoint(TcpListener);

impl Endpoint {
    /// Binds the endpoint.
    ///
    /// # Errors
    /// The address is taken or not ours.
    pub async fn bind(address: SocketAddr) -> std::io::Result<Self> {
        TcpListener::bind(address).await.map(Self)
    }

    /// The address bound; port 0 is replaced by the one the system chose.
    ///
    /// # Errors
    /// The socket is gone.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Serves until `shutdown` is cancelled.
    ///
    /// # Errors
    /// The socket fails.
    pub async fn serve(self, shown: Shown, shutdown: CancellationToken) -> std::io::Result<()> {
        let router = Router::new()
            .route("/metrics", get(metrics))
            .route("/livez", get(|| async { "alive\n" }))
            .route("/readyz", get(ready))
            .with_state(shown);
        axum::serve(self.0, router).with_graceful_shutdown(shutdown.cancelled_owned()).await
    }
}

async fn metrics(State(shown): State<Shown>) -> impl IntoResponse {
    const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(axum::http::header::CONTENT_TYPE, OPENMETRICS)], (shown.metrics)())
}

async fn ready(State(shown): State<Shown>) -> (StatusCode, &'static str) {
    if shown.ready.load(Ordering::Relaxed) {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
    }
}
