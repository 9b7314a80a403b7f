//! A target that misbehaves: a small HTTP server on loopback, which counts for
//! itself how it is called.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::{Instant, sleep},
};

/// How the target behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    /// It serves.
    Well = 0,
    /// It hangs up on whoever calls.
    Down = 1,
    /// It answers 429, and asks to be left alone for a while.
    Throttling = 2,
    /// It serves, and takes its time: it has just come up.
    Slow = 3,
    /// It hangs up on one in five.
    Shaky = 4,
}

/// What it asks for when it is called too much.
pub const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How long a call takes.
const TAKES: Duration = Duration::from_millis(40);
/// The same of one that has just come up.
const TAKES_SLOW: Duration = Duration::from_millis(250);

/// How a call ended, as its caller sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Called {
    Served,
    Throttled,
    Failed,
}

/// What the target has seen.
#[derive(Default)]
pub struct Seen {
    weather: AtomicU8,
    served: AtomicU64,
    /// Calls while it was shaky.
    called: AtomicU64,
    in_flight: AtomicU64,
    /// The most calls at the same time.
    pub most: AtomicU64,
    /// When it hung up on a caller.
    hung_up: Mutex<Vec<Instant>>,
}

impl Seen {
    pub fn turn(&self, weather: Weather) {
        self.weather.store(weather as u8, Ordering::SeqCst);
    }

    pub fn served(&self) -> u64 {
        self.served.load(Ordering::SeqCst)
    }

    /// Calls that it hung up on since an instant.
    pub fn hung_up_since(&self, since: Instant) -> usize {
        self.hung_up.lock().unwrap().iter().filter(|at| **at >= since).count()
    }

    fn weather(&self) -> Weather {
        match self.weather.load(Ordering::SeqCst) {
            1 => Weather::Down,
            2 => Weather::Throttling,
            3 => Weather::Slow,
            4 => Weather::Shaky,
            _ => Weather::Well,
        }
    }

    /// One call, from its request to its end.
    async fn answer(&self, mut caller: TcpStream) {
        let mut request = [0; 1024];
        if !matches!(caller.read(&mut request).await, Ok(1..)) {
            return;
        }
        let in_flight = self.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(in_flight, Ordering::SeqCst);
        let weather = match self.weather() {
            Weather::Shaky if self.called.fetch_add(1, Ordering::SeqCst).is_multiple_of(5) => {
                Weather::Down
            }
            Weather::Shaky => Weather::Well,
            weather => weather,
        };
        let answer = match weather {
            Weather::Down => {
                self.hung_up.lock().unwrap().push(Instant::now());
                self.in_flight.fetch_sub(1, Ordering::SeqCst);
                return;
            }
            Weather::Throttling => {
                let seconds = RETRY_AFTER.as_secs();
                format!("HTTP/1.1 429 Too Many Requests\r\nRetry-After: {seconds}\r\n\r\n")
            }
            Weather::Well | Weather::Slow | Weather::Shaky => {
                sleep(if weather == Weather::Slow { TAKES_SLOW } else { TAKES }).await;
                self.served.fetch_add(1, Ordering::SeqCst);
                "HTTP/1.1 200 OK\r\n\r\n".to_owned()
            }
        };
        // Before its caller hears of the end, so that no call is counted twice.
        self.in_flight.fetch_sub(1, Ordering::SeqCst);
        let _ = caller.write_all(answer.as_bytes()).await;
    }
}

/// Starts it. It ends with the runtime.
pub async fn start() -> (SocketAddr, Arc<Seen>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Arc::new(Seen::default());
    let shared = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((caller, _)) = listener.accept().await {
            let seen = Arc::clone(&shared);
            tokio::spawn(async move { seen.answer(caller).await });
        }
    });
    (address, seen)
}

/// Calls it.
pub async fn call(address: SocketAddr) -> Called {
    let calling = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: target\r\n\r\n").await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    match calling.await {
        Ok(answer) if answer.starts_with(b"HTTP/1.1 200") => Called::Served,
        Ok(answer) if answer.starts_with(b"HTTP/1.1 429") => Called::Throttled,
        _ => Called::Failed,
    }
}
