//! The listener over real sockets: tonic clients for what callers see, raw
//! frames for what a hostile or half-dead peer does.

use std::os::unix::fs::PermissionsExt;
use std::sync::Mutex;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tonic::service::Routes;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::*;

/// Longer than anything here takes; a test that gets there has hung.
const PATIENCE: Duration = Duration::from_secs(10);

/// Answers at once, except `hold`, which waits to be released, and `endless`, which
/// waits for its connection to be told to go.
struct Scripted {
    begun: mpsc::UnboundedSender<()>,
    release: Arc<Semaphore>,
}

#[tonic::async_trait]
impl Health for Scripted {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        if request.get_ref().service == "hold" {
            let _ = self.begun.send(());
            let _ = self.release.acquire().await;
        }
        if request.get_ref().service == "endless" {
            farewell().cancelled().await;
        }
        let status = ServingStatus::Serving.into();
        Ok(Response::new(HealthCheckResponse { status }))
    }

    type WatchStream = tokio_stream::Empty<Result<HealthCheckResponse, Status>>;

    async fn watch(
        &self,
        _: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        Ok(Response::new(tokio_stream::empty()))
    }
}

/// A listener that is being served.
struct Served {
    addresses: Vec<Address>,
    stats: Arc<ListenerStats>,
    shutdown: CancellationToken,
    drained: JoinHandle<Drained>,
    begun: mpsc::UnboundedReceiver<()>,
    release: Arc<Semaphore>,
}

fn serve_on(addresses: &[Address], settings: ListenerSettings) -> Served {
    let (begin, begun) = mpsc::unbounded_channel();
    let release = Arc::new(Semaphore::new(0));
    let service = Scripted { begun: begin, release: Arc::clone(&release) };
    let routes = Routes::new(HealthServer::new(service)).prepare();
    let listener = Listener::bind(addresses, settings, || 0.5).unwrap();
    let (addresses, stats) = (listener.addresses(), listener.stats());
    let shutdown = CancellationToken::new();
    let drained = tokio::spawn(listener.serve(routes, shutdown.clone()));
    Served { addresses, stats, shutdown, drained, begun, release }
}

fn serve(settings: ListenerSettings) -> Served {
    serve_on(&["127.0.0.1:0".parse().unwrap()], settings)
}

impl Served {
    fn tcp(&self) -> std::net::SocketAddr {
        let Address::Tcp(address) = &self.addresses[0] else {
            panic!("served on a Unix socket first");
        };
        *address
    }

    async fn client(&self) -> HealthClient<Channel> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.tcp())).unwrap();
        HealthClient::new(endpoint.connect().await.unwrap())
    }

    /// A call that is running in the service when this returns.
    async fn held_call(&mut self) -> JoinHandle<Result<Response<HealthCheckResponse>, Status>> {
        let mut client = self.client().await;
        let call = tokio::spawn(async move { client.check(check("hold")).await });
        timeout(PATIENCE, self.begun.recv()).await.unwrap().unwrap();
        call
    }

    async fn open_is(&self, open: usize) {
        let reached = async {
            while self.stats.open.load(Ordering::Relaxed) != open {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, reached).await.unwrap();
    }

    async fn drained(self) -> Drained {
        self.shutdown.cancel();
        timeout(PATIENCE, self.drained).await.unwrap().unwrap()
    }
}

fn check(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.into() }
}

/// A peer that writes frames by hand. Numbers as in RFC 9113.
struct RawPeer(TcpStream);

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const NO_ERROR: u32 = 0;
const ENHANCE_YOUR_CALM: u32 = 11;

struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

fn number(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes.try_into().unwrap())
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// HEADERS of `POST http /`, from the static table; ends the headers.
fn headers(stream: u32) -> Vec<u8> {
    frame(HEADERS, 0x4, stream, &[0x83, 0x86, 0x84])
}

impl RawPeer {
    async fn mute(served: &Served) -> Self {
        Self(TcpStream::connect(served.tcp()).await.unwrap())
    }

    async fn greeting(served: &Served) -> Self {
        let mut peer = Self::mute(served).await;
        peer.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        peer.send(&frame(SETTINGS, 0, 0, &[])).await;
        peer
    }

    async fn send(&mut self, bytes: &[u8]) {
        // The other side may have closed already; reading will tell.
        let _ = self.0.write_all(bytes).await;
    }

    /// The next frame, or none at the end of the connection.
    async fn frame(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        let read = timeout(PATIENCE, self.0.read_exact(&mut head)).await;
        read.unwrap().ok()?;
        let len = number(&[0, head[0], head[1], head[2]]);
        let mut payload = vec![0; len as usize];
        self.0.read_exact(&mut payload).await.ok()?;
        let stream = number(&head[5..]);
        Some(Frame { kind: head[3], flags: head[4], stream, payload })
    }

    async fn frame_of(&mut self, kind: u8) -> Option<Frame> {
        loop {
            let frame = self.frame().await?;
            if frame.kind == kind {
                return Some(frame);
            }
        }
    }

    /// The reason of the last GOAWAY before the connection ended.
    async fn goaway_reason(&mut self) -> Option<u32> {
        let mut reason = None;
        while let Some(goaway) = self.frame_of(GOAWAY).await {
            reason = Some(number(&goaway.payload[4..8]));
        }
        reason
    }
}

#[test]
fn every_http2_setting_reaches_the_connection() {
    let builder = Http2Settings::default().builder(TokioExecutor::new());
    let told = format!("{builder:?}");
    for setting in [
        "max_concurrent_streams: Some(128)",
        "max_local_error_reset_streams: Some(1024)",
        "max_pending_accept_reset_streams: Some(20)",
        "max_header_list_size: 8192",
        "max_frame_size: 16384",
        "adaptive_window: false",
        "initial_stream_window_size: 65536",
        "initial_conn_window_size: 262144",
        "max_send_buffer_size: 409600",
        "keep_alive_interval: Some(30s)",
        "keep_alive_timeout: 10s",
        "enable_connect_protocol: false",
    ] {
        assert!(told.contains(setting), "{setting} missing in {told}");
    }
    // Without a timer the keep-alive would panic, not ping.
    assert!(told.contains("timer: Time"), "{told}");
    assert!(!told.contains("Empty"), "{told}");
}

#[tokio::test]
async fn a_peer_is_told_the_bounds() {
    let served = serve(ListenerSettings::default());
    let mut peer = RawPeer::greeting(&served).await;
    let told = peer.frame_of(SETTINGS).await.unwrap();
    let setting = |id: u16| {
        let mut settings = told.payload.chunks(6);
        let found = settings.find(|setting| setting[..2] == id.to_be_bytes());
        found.map(|setting| number(&setting[2..]))
    };
    const MAX_CONCURRENT_STREAMS: u16 = 3;
    const INITIAL_WINDOW_SIZE: u16 = 4;
    const MAX_HEADER_LIST_SIZE: u16 = 6;
    assert_eq!(setting(MAX_CONCURRENT_STREAMS), Some(128));
    assert_eq!(setting(MAX_HEADER_LIST_SIZE), Some(8192));
    assert!(matches!(setting(INITIAL_WINDOW_SIZE), Some(65_536)));
    let connection_window = peer.frame_of(WINDOW_UPDATE).await.unwrap();
    assert_eq!(connection_window.stream, 0);
    assert_eq!(number(&connection_window.payload), 262_144 - 65_535);
}

#[tokio::test]
async fn streams_over_the_bound_are_refused() {
    let mut settings = ListenerSettings::default();
    settings.http2.concurrent_streams_max = 2;
    let served = serve(settings);
    let mut peer = RawPeer::greeting(&served).await;
    for stream in [1, 3, 5] {
        peer.send(&headers(stream)).await;
    }
    let refused = peer.frame_of(RST_STREAM).await.unwrap();
    const REFUSED_STREAM: u32 = 7;
    assert_eq!(refused.stream, 5);
    assert_eq!(number(&refused.payload), REFUSED_STREAM);
}

#[tokio::test]
async fn tcp_and_unix_sockets_are_served_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("reprise.sock");
    let addresses = ["127.0.0.1:0".parse().unwrap(), Address::Unix(path.clone())];
    let served = serve_on(&addresses, ListenerSettings::default());

    let mut over_tcp = served.client().await;
    over_tcp.check(check("")).await.unwrap();

    let connector = tower::service_fn(move |_: Uri| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    let channel =
        Endpoint::from_static("http://localhost").connect_with_connector(connector).await.unwrap();
    HealthClient::new(channel).check(check("")).await.unwrap();

    assert_eq!(served.stats.accepted.load(Ordering::Relaxed), 2);
    assert_eq!(served.drained().await, Drained::default());
}

#[test]
fn calls_are_served_on_several_threads_too() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let mut served = serve(ListenerSettings::default());
        let call = served.held_call().await;
        served.release.add_permits(1);
        call.await.unwrap().unwrap();
        assert_eq!(served.drained().await, Drained::default());
    });
}

#[tokio::test]
async fn a_peer_that_never_speaks_is_dropped() {
    let served =
        serve(ListenerSettings { preface_wait: Duration::from_millis(20), ..Default::default() });
    let mut mute = RawPeer::mute(&served).await;
    let mut half = RawPeer::mute(&served).await;
    half.send(b"PRI * HTT").await;
    let mut greeting = RawPeer::greeting(&served).await;

    while mute.frame().await.is_some() {}
    while half.frame().await.is_some() {}
    assert_eq!(served.stats.silent.load(Ordering::Relaxed), 2);

    // The third has no call either, but it has spoken.
    greeting.send(&frame(PING, 0, 0, b"tick-tac")).await;
    let pong = greeting.frame_of(PING).await.unwrap();
    assert_eq!(pong.flags, 1);
}

#[tokio::test]
async fn a_drain_does_not_wait_for_peers_that_never_spoke() {
    let served =
        serve(ListenerSettings { drain_deadline: Duration::from_secs(600), ..Default::default() });
    let _mute = RawPeer::mute(&served).await;
    served.open_is(1).await;
    assert_eq!(served.drained().await, Drained::default());
}

#[tokio::test]
async fn a_drain_does_not_wait_for_idle_peers_that_do_not_go() {
    let served = serve(ListenerSettings {
        drain_deadline: Duration::from_secs(600),
        goaway_patience: Duration::from_millis(10),
        ..Default::default()
    });
    let mut deaf = RawPeer::greeting(&served).await;
    deaf.frame_of(SETTINGS).await.unwrap();
    assert_eq!(served.drained().await, Drained::default());
    assert_eq!(deaf.goaway_reason().await, Some(NO_ERROR));
}

#[tokio::test]
async fn a_call_in_flight_is_finished_during_a_drain() {
    let mut served = serve(ListenerSettings::default());
    let call = served.held_call().await;
    let address = served.tcp();
    served.shutdown.cancel();
    let closed = async { while TcpStream::connect(address).await.is_ok() {} };
    timeout(PATIENCE, closed).await.unwrap();

    served.release.add_permits(1);
    call.await.unwrap().unwrap();
    assert_eq!(served.drained().await, Drained::default());
}

#[tokio::test]
async fn a_call_longer_than_the_drain_is_aborted_and_reported() {
    let mut served =
        serve(ListenerSettings { drain_deadline: Duration::from_millis(50), ..Default::default() });
    let call = served.held_call().await;
    let stats = Arc::clone(&served.stats);
    let expected = Drained { connections_aborted: 1, calls_aborted: 1 };
    assert_eq!(served.drained().await, expected);
    assert!(call.await.unwrap().is_err());
    assert_eq!(stats.aborted.load(Ordering::Relaxed), 1);
    assert_eq!(stats.open.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn an_aged_connection_is_told_to_go_and_its_call_finished() {
    let served =
        serve(ListenerSettings { age_max: Duration::from_millis(50), ..Default::default() });
    let mut peer = RawPeer::greeting(&served).await;
    // In flight until its message comes.
    let path = b"/grpc.health.v1.Health/Check";
    let head = [&[0x83, 0x86, 0x04, path.len() as u8], &path[..]].concat();
    peer.send(&frame(HEADERS, 0x4, 1, &head)).await;
    let goaway = peer.frame_of(GOAWAY).await.unwrap();
    assert_eq!(number(&goaway.payload[4..8]), NO_ERROR);
    assert_eq!(served.stats.open.load(Ordering::Relaxed), 1);

    // GOAWAY is final once the PING that came with it is answered.
    let ping = peer.frame_of(PING).await.unwrap();
    peer.send(&frame(PING, 1, 0, &ping.payload)).await;
    let last = peer.frame_of(GOAWAY).await.unwrap();
    assert_eq!(number(&last.payload[..4]), 1);
    peer.send(&frame(DATA, 1, 1, &[0; 5])).await;
    assert_eq!(peer.frame_of(HEADERS).await.unwrap().stream, 1);
    while peer.frame().await.is_some() {}
    served.open_is(0).await;
    assert_eq!(served.stats.aged.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn an_aged_connection_that_stays_is_closed_after_its_grace() {
    let mut served = serve(ListenerSettings {
        age_max: Duration::from_millis(50),
        age_grace: Duration::from_millis(50),
        ..Default::default()
    });
    let call = served.held_call().await;
    assert!(call.await.unwrap().is_err());
    served.open_is(0).await;
    assert_eq!(served.stats.aborted.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_call_without_an_end_hears_that_its_connection_is_told_to_go() {
    let settings = ListenerSettings { age_max: Duration::from_millis(50), ..Default::default() };
    for served in [serve(settings), serve(ListenerSettings::default())] {
        let mut client = served.client().await;
        let call = tokio::spawn(async move { client.check(check("endless")).await });
        if served.stats.aged.load(Ordering::Relaxed) == 0 {
            served.open_is(1).await;
        }
        assert_eq!(served.drained().await, Drained::default());
        call.await.unwrap().unwrap();
    }
}

#[test]
fn ages_are_spread_by_a_tenth() {
    let age = Duration::from_secs(100);
    assert_eq!(spread(age, 0.0), Duration::from_secs(90));
    assert_eq!(spread(age, 0.5), age);
    assert_eq!(spread(age, 1.0), Duration::from_secs(110));
}

#[tokio::test]
async fn a_connection_over_the_bound_is_closed_on_arrival() {
    let served = serve(ListenerSettings { connections_max: 1, ..Default::default() });
    let first = RawPeer::mute(&served).await;
    served.open_is(1).await;
    let mut second = RawPeer::mute(&served).await;
    assert!(second.frame().await.is_none());
    assert_eq!(served.stats.refused.load(Ordering::Relaxed), 1);

    drop(first);
    served.open_is(0).await;
    served.client().await.check(check("")).await.unwrap();
}

#[tokio::test]
async fn one_peer_cannot_take_every_connection() {
    let served =
        serve(ListenerSettings { connections_per_peer_max: Some(1), ..Default::default() });
    let first = RawPeer::mute(&served).await;
    served.open_is(1).await;
    assert!(RawPeer::mute(&served).await.frame().await.is_none());

    drop(first);
    served.open_is(0).await;
    served.client().await.check(check("")).await.unwrap();
}

#[tokio::test]
async fn rapid_resets_end_the_connection() {
    let served = serve(ListenerSettings::default());
    let mut peer = RawPeer::greeting(&served).await;
    const CANCEL: [u8; 4] = 8u32.to_be_bytes();
    let flood: Vec<u8> = (0..200)
        .flat_map(|n| [headers(2 * n + 1), frame(RST_STREAM, 0, 2 * n + 1, &CANCEL)].concat())
        .collect();
    peer.send(&flood).await;
    assert_eq!(peer.goaway_reason().await, Some(ENHANCE_YOUR_CALM));
}

#[tokio::test]
async fn resets_provoked_by_protocol_errors_end_the_connection() {
    let served = serve(ListenerSettings::default());
    let mut peer = RawPeer::greeting(&served).await;
    // A window too large is an error of its stream only: we reset it.
    let too_much = 0x7fff_ffffu32.to_be_bytes();
    let flood: Vec<u8> = (0..2000)
        .flat_map(|n| [headers(2 * n + 1), frame(WINDOW_UPDATE, 0, 2 * n + 1, &too_much)].concat())
        .collect();
    peer.send(&flood).await;
    assert_eq!(peer.goaway_reason().await, Some(ENHANCE_YOUR_CALM));
}

fn bind(address: &str, settings: &ListenerSettings) -> Result<Listener, BindError> {
    Listener::bind(&[address.parse().unwrap()], settings.clone(), || 0.0)
}

#[tokio::test]
async fn only_loopback_and_unix_sockets_are_bound_unless_told_otherwise() {
    let secure = ListenerSettings::default();
    bind("127.0.0.1:0", &secure).unwrap();
    let refused = bind("0.0.0.0:0", &secure).unwrap_err();
    assert!(matches!(refused, BindError::Exposed(_)));
    assert!(refused.to_string().contains("insecure = true"));
    assert!(matches!(bind("[::]:0", &secure), Err(BindError::Exposed(_))));
    let insecure = ListenerSettings { insecure: true, ..secure };
    bind("0.0.0.0:0", &insecure).unwrap();
}

#[test]
fn addresses_are_read_as_they_are_written() {
    for text in ["127.0.0.1:7171", "[::1]:7171", "unix:/run/reprise.sock"] {
        assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
    }
    for text in ["", "unix:", "localhost", "127.0.0.1", "/run/reprise.sock"] {
        assert!(text.parse::<Address>().is_err(), "{text}");
    }
}

#[tokio::test]
async fn a_socket_file_is_ours_while_we_live() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("reprise.sock");
    let address = Address::Unix(path.clone()).to_string();
    let settings = ListenerSettings::default();

    // Left by a process that died: nobody answers.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let listener = bind(&address, &settings).unwrap();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);

    let refused = bind(&address, &settings).unwrap_err();
    assert!(matches!(refused, BindError::InUse(_)), "{refused}");
    assert!(path.exists());

    drop(listener);
    assert!(!path.exists());

    std::fs::write(&path, "precious").unwrap();
    let refused = bind(&address, &settings).unwrap_err();
    assert!(matches!(refused, BindError::NotASocket(_)), "{refused}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
}

#[tokio::test]
async fn a_socket_file_that_was_replaced_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("reprise.sock");
    let address = Address::Unix(path.clone()).to_string();
    let listener = bind(&address, &ListenerSettings::default()).unwrap();
    std::fs::remove_file(&path).unwrap();
    let _successor = std::os::unix::net::UnixListener::bind(&path).unwrap();
    drop(listener);
    assert!(path.exists());
}

#[tokio::test]
async fn a_served_socket_file_is_removed_when_drained() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("reprise.sock");
    let served = serve_on(&[Address::Unix(path.clone())], ListenerSettings::default());
    served.drained().await;
    assert!(!path.exists());
}

/// What an abandoned call leaves: nothing that runs.
#[tokio::test]
async fn a_call_the_client_gave_up_is_dropped() {
    let mut served = serve(ListenerSettings::default());
    let call = served.held_call().await;
    call.abort();
    assert_eq!(served.drained().await, Drained::default());
}

/// The least a service can be: shows that nothing of tonic's is asked for.
#[tokio::test]
async fn any_tower_service_can_be_served() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let service = {
        let seen = Arc::clone(&seen);
        tower::service_fn(move |request: http::Request<Incoming>| {
            seen.lock().unwrap().push(request.uri().path().to_owned());
            async {
                Ok::<_, Status>(Status::unimplemented("none").into_http::<tonic::body::Body>())
            }
        })
    };
    let listener = bind("127.0.0.1:0", &ListenerSettings::default()).unwrap();
    let address = listener.addresses()[0].to_string();
    let _served = tokio::spawn(listener.serve(service, CancellationToken::new()));
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    let mut client = HealthClient::new(endpoint.connect().await.unwrap());
    let status = client.check(check("")).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    assert_eq!(*seen.lock().unwrap(), ["/grpc.health.v1.Health/Check"]);
}
