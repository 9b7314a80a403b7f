//! Puts the parts together, starts them and stops them.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;
use tonic_health::{
    ServingStatus,
    pb::health_server::HealthServer,
    server::{HealthReporter, HealthService},
};
use tower::Layer as _;

use crate::{
    chance,
    clock::Clock,
    config::{
        settings::{Settings, StoreSettings},
        watch::Pace,
    },
    domain::time::Timestamp,
    grpc::{
        admin::{About, Admin},
        admission::{Admission, AdmissionLayer, AdmissionStats, Refusal, class_of},
        listener::{Address, BindError, Drained, Listener, ListenerSettings},
        retry::Retry,
        routes::Routes,
    },
    http::{Endpoint, Shown},
    policies,
    service::{Service, follow_until, sweep_until, wake_until},
    store::{
        Store,
        embedded::{Embedded, EmbeddedError, EmbeddedOptions},
        redis::{self, Redis, RedisOptions, address::Address as RedisAddress},
    },
    telemetry::{AdmissionState, Telemetry},
};

/// Services whose health is told.
const HEALTH_NAMES: [&str; 3] = ["", "reprise.v1.RetryService", "reprise.v1.AdminService"];
/// How long work whose callers have left is waited for at the end.
const EMPTYING: Duration = Duration::from_secs(5);

/// A server that is ready to serve, on the store that was chosen.
pub enum Server {
    /// In this process.
    Embedded(Ready<Embedded>),
    /// In Redis.
    Redis(Ready<Redis>),
}

/// A server on a store, ready to serve.
pub struct Ready<S> {
    store: S,
    service: Arc<Service<S>>,
    listener: Listener,
    endpoint: Option<Endpoint>,
    admission: Admission,
    about: Arc<About>,
    clock: Clock,
    reflection: bool,
    policy_file: Option<PathBuf>,
}

/// Where a server listens.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// The service.
    pub service: Vec<Address>,
    /// Metrics and probes.
    pub metrics: Option<SocketAddr>,
}

/// Why a server did not start, or stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The embedded store did not open.
    #[error(transparent)]
    Embedded(#[from] EmbeddedError),
    /// Redis could not be used.
    #[error(transparent)]
    Redis(#[from] redis::RedisError),
    /// An address could not be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The metrics address could not be bound.
    #[error(
        "{address} could not be bound for metrics: {source}; choose another with [metrics] listen, or \"\" for none"
    )]
    Metrics {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// There is nowhere to listen.
    #[error("no address to listen on; set [server] listen, or [server] socket")]
    NoAddress,
    /// The contract cannot be read.
    #[error("the compiled contract cannot be served for reflection")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The store stopped for good.
    #[error(
        "the store stopped: {0}; what was acknowledged is safe, start again once the disk is well"
    )]
    StoreStopped(String),
}

impl Server {
    /// Opens the store and binds the addresses. Must be called within a tokio
    /// runtime.
    ///
    /// # Errors
    /// See [`ServerError`]. Nothing is left behind.
    pub async fn start(settings: &Settings) -> Result<Self, ServerError> {
        let clock = Clock::system(Timestamp::EPOCH);
        match &settings.store {
            StoreSettings::Memory => {
                let store = Embedded::memory(clock.clone());
                Ready::start(settings, store, clock).await.map(Self::Embedded)
            }
            StoreSettings::Embedded { dir, fsync, size_max } => {
                let options =
                    EmbeddedOptions { dir: dir.clone(), fsync: *fsync, size_max: *size_max };
                let store = Embedded::open(&options, clock.clone())?;
                Ready::start(settings, store, clock).await.map(Self::Embedded)
            }
            StoreSettings::Redis { address, timeout, strict } => {
                let usual = RedisOptions::new(RedisAddress::clone(address));
                let options = RedisOptions { timeout: *timeout, strict: *strict, ..usual };
                let store = Redis::open(options).await?;
                Ready::start(settings, store, clock).await.map(Self::Redis)
            }
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        match self {
            Self::Embedded(ready) => ready.addresses(),
            Self::Redis(ready) => ready.addresses(),
        }
    }

    /// Serves until `shutdown` is cancelled, then drains: health says
    /// NOT_SERVING, no connection is accepted, calls in flight are finished
    /// within the drain deadline, and everything accepted is durable.
    ///
    /// # Errors
    /// The store stopped by itself.
    pub async fn serve(self, shutdown: CancellationToken) -> Result<Drained, ServerError> {
        match self {
            Self::Embedded(ready) => ready.serve(shutdown).await,
            Self::Redis(ready) => ready.serve(shutdown).await,
        }
    }
}

impl<S: Store + Clone> Ready<S> {
    async fn start(settings: &Settings, store: S, clock: Clock) -> Result<Self, ServerError> {
        let admission = Admission::new(settings.admission.clone(), chance::unit);
        let telemetry = Arc::new(Telemetry::new());
        let service = Arc::new(Service::new(store.clone(), Arc::clone(&telemetry), clock.clone()));
        if settings.listen.is_empty() {
            return Err(ServerError::NoAddress);
        }
        let listener = Listener::bind(&settings.listen, listener_settings(settings), chance::unit)?;
        let endpoint = match settings.metrics {
            None => None,
            Some(address) => Some(
                Endpoint::bind(address)
                    .await
                    .map_err(|source| ServerError::Metrics { address, source })?,
            ),
        };
        let about = Arc::new(About {
            started_at: store.now().at,
            policy_file: settings
                .policy_file
                .as_ref()
                .map(|file| file.display().to_string())
                .unwrap_or_default(),
            policy_file_error: ArcSwap::default(),
        });
        let policy_file = settings.policy_file.clone();
        Ok(Self {
            store,
            service,
            listener,
            endpoint,
            admission,
            about,
            clock,
            reflection: settings.reflection,
            policy_file,
        })
    }

    fn addresses(&self) -> Addresses {
        let metrics = self.endpoint.as_ref().and_then(|endpoint| endpoint.address().ok());
        Addresses { service: self.listener.addresses(), metrics }
    }

    async fn serve(self, shutdown: CancellationToken) -> Result<Drained, ServerError> {
        let Self {
            store,
            service,
            listener,
            endpoint,
            admission,
            about,
            clock,
            reflection,
            policy_file,
        } = self;
        let health = HealthReporter::new();
        let health_service = HealthServer::new(HealthService::from_health_reporter(health.clone()));
        let ready = Arc::new(AtomicBool::new(false));

        let retry = Retry::new(Arc::clone(&service), clock);
        let admin = Admin::new(Arc::clone(&service), Arc::clone(&about));
        let routes = Routes::new(retry, admin, health_service, reflection)?;
        let served = AdmissionLayer::new(admission.clone(), class_of).layer(routes);

        let ended = CancellationToken::new();
        let background = Background {
            service: &service,
            store: &store,
            admission: &admission,
            about: &about,
            ended: &ended,
        };
        background.start(endpoint, &ready);
        background.apply_policies(policy_file).await;
        let well = Well { health: health.clone(), ready: Arc::clone(&ready) };
        well.tell(store.watch().borrow().is_ok()).await;

        let stop = shutdown.child_token();
        let leaving = async {
            // Health follows the store until the end.
            let following = well.follow(&store, &service);
            shutdown.run_until_cancelled(following).await;
            well.tell(false).await;
            service.end_waits();
            stop.cancel();
        };
        let serving = listener.serve(served, stop.clone());
        let outcome = tokio::select! {
            reason = store.ended() => Err(ServerError::StoreStopped(reason)),
            (drained, ()) = async { tokio::join!(serving, leaving) } => Ok(drained),
        };
        // Callers may have left; what was let in is finished all the same.
        let _ = tokio::time::timeout(EMPTYING, admission.emptied()).await;
        ended.cancel();
        outcome
    }
}

/// Who is told whether calls are served.
struct Well {
    health: HealthReporter,
    ready: Arc<AtomicBool>,
}

impl Well {
    async fn tell(&self, is_well: bool) {
        self.ready.store(is_well, Ordering::Relaxed);
        let status = if is_well { ServingStatus::Serving } else { ServingStatus::NotServing };
        set_health(&self.health, status).await;
    }

    /// Tells whenever the store goes or comes back. Never ends.
    async fn follow<S: Store>(&self, store: &S, service: &Service<S>) {
        let mut state = store.watch();
        loop {
            let is_well = state.borrow_and_update().is_ok();
            service.telemetry().store_up.set(u64::from(is_well));
            self.tell(is_well).await;
            if state.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }
}

/// What runs beside the calls.
struct Background<'a, S> {
    service: &'a Arc<Service<S>>,
    store: &'a S,
    admission: &'a Admission,
    about: &'a Arc<About>,
    ended: &'a CancellationToken,
}

impl<S: Store + Clone> Background<'_, S> {
    fn start(&self, endpoint: Option<Endpoint>, ready: &Arc<AtomicBool>) {
        let ended = || self.ended.clone().cancelled_owned();
        tokio::spawn(sweep_until(Arc::clone(self.service), ended()));
        tokio::spawn(wake_until(Arc::clone(self.service), ended()));
        tokio::spawn(follow_until(Arc::clone(self.service), ended()));
        if let Some(endpoint) = endpoint {
            let shown = Shown { metrics: self.metrics(), ready: Arc::clone(ready) };
            let ended = self.ended.clone();
            tokio::spawn(async move {
                if let Err(error) = endpoint.serve(shown, ended).await {
                    tracing::error!(%error, "metrics and probes are no longer served");
                }
            });
        }
    }

    /// Applies the policy file before the first call is taken, as far as it can
    /// be, and from then on whenever it changes.
    async fn apply_policies(&self, file: Option<PathBuf>) {
        let Some(file) = file else {
            self.service.telemetry().policy_file_applied.set(1);
            return;
        };
        let about = Arc::clone(self.about);
        let tell = move |error: String| about.policy_file_error.store(Arc::new(error));
        let mut follower =
            policies::Follower::new(Arc::clone(self.service), file, Pace::default(), tell);
        follower.next().await;
        let ended = self.ended.clone();
        tokio::spawn(async move {
            ended.run_until_cancelled(async { while follower.next().await {} }).await
        });
    }

    fn metrics(&self) -> Arc<dyn Fn() -> String + Send + Sync> {
        let (service, store, admission) =
            (Arc::clone(self.service), self.store.clone(), self.admission.clone());
        Arc::new(move || {
            let telemetry = service.telemetry();
            telemetry.calls_awaiting.set(service.waiting() as u64);
            telemetry.store_unsafe.set(u64::from(store.is_unsafe()));
            if let Some(sizes) = store.sizes() {
                telemetry.steps.set(sizes.steps);
                telemetry.live_steps.set(sizes.live_steps);
                telemetry.store_bytes.set(sizes.disk_bytes);
                telemetry.show_log_syncs(sizes.syncs);
            }
            telemetry.store_lost_writes.inner().store(store.lost(), Ordering::Relaxed);
            telemetry.admission.show(&admission_state(admission.stats()));
            telemetry.text()
        })
    }
}

fn listener_settings(settings: &Settings) -> ListenerSettings {
    ListenerSettings {
        connections_max: settings.connections_max,
        drain_deadline: settings.drain,
        socket_mode: settings.socket_mode,
        insecure: settings.insecure,
        ..ListenerSettings::default()
    }
}

fn admission_state(stats: &AdmissionStats) -> AdmissionState {
    let refused = [
        ("queue_full", Refusal::QueueFull),
        ("waited_too_long", Refusal::WaitedTooLong),
        ("deadline_too_short", Refusal::DeadlineTooShort),
        ("request_too_late", Refusal::RequestTooLate),
    ];
    let level = |level: &AtomicUsize| level.load(Ordering::Relaxed) as u64;
    AdmissionState {
        refused: refused
            .map(|(name, refusal)| (name, stats.refused(refusal).load(Ordering::Relaxed))),
        in_flight: level(&stats.in_flight),
        queued: level(&stats.queued),
        limit: level(&stats.limit),
    }
}

async fn set_health(health: &HealthReporter, status: ServingStatus) {
    for name in HEALTH_NAMES {
        health.set_service_status(name, status).await;
    }
}
