//! Where the service is, and a channel to it.

use std::{
    env, fmt,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};

use super::{error::CliError, exit::Exit};

/// Where a socket is looked for when no address is given, and the port after it.
const SYSTEM_SOCKET: &str = "/run/reprise/reprise.sock";
const DEFAULT_PORT: &str = "http://127.0.0.1:7070";

/// What an HTTP/2 request over a socket names as its host. A server refuses a
/// request whose authority is a path.
const SOCKET_AUTHORITY: &str = "http://localhost";

/// A connection that carries an unanswered call is probed this often, and
/// given up when the probe stays unanswered for as long: a peer that vanished
/// without a word would otherwise hold every later call up.
const PROBE_EVERY: Duration = Duration::from_secs(10);

/// Where the service listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A Unix socket.
    Socket(PathBuf),
    /// A host and port, in clear text.
    Tcp(Uri),
}

impl Address {
    /// The address used when none is given: a socket that exists, else the port.
    pub fn default_here() -> Self {
        let sockets = env::var_os("XDG_RUNTIME_DIR")
            .map(|dir| Path::new(&dir).join("reprise.sock"))
            .into_iter()
            .chain([PathBuf::from(SYSTEM_SOCKET)]);
        let socket = sockets.into_iter().find(|path| path.exists());
        socket.map_or_else(|| Self::Tcp(Uri::from_static(DEFAULT_PORT)), Self::Socket)
    }

    /// A channel that connects with its first call, and again when it was cut.
    pub fn channel(&self, connect_timeout: Duration) -> Channel {
        let endpoint = |uri: Uri| {
            Endpoint::from(uri)
                .connect_timeout(connect_timeout)
                .http2_keep_alive_interval(PROBE_EVERY)
                .keep_alive_timeout(PROBE_EVERY)
                .user_agent(concat!("reprise-cli/", env!("CARGO_PKG_VERSION")))
        };
        match self {
            Self::Tcp(uri) => endpoint(uri.clone()).map(|e| e.connect_lazy()),
            Self::Socket(path) => {
                let path = path.clone();
                let connector = tower::service_fn(move |_: Uri| {
                    let path = path.clone();
                    async move { UnixStream::connect(path).await.map(TokioIo::new) }
                });
                endpoint(Uri::from_static(SOCKET_AUTHORITY))
                    .map(|e| e.connect_with_connector_lazy(connector))
            }
        }
        .expect("a version number is a valid header")
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(path) => write!(f, "unix:{}", path.display()),
            // A `Uri` without a path writes one.
            Self::Tcp(uri) => f.write_str(uri.to_string().trim_end_matches('/')),
        }
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const ACCEPTED: &str = "unix:/path, http://host:port or host:port";
        if let Some(path) = text.strip_prefix("unix:") {
            let path = Path::new(path.strip_prefix("//").unwrap_or(path));
            return match path.is_absolute() {
                true => Ok(Self::Socket(path.to_owned())),
                false => Err(format!("the socket's path must be absolute; accepted is {ACCEPTED}")),
            };
        }
        if text.starts_with("https://") {
            return Err(format!(
                "this client speaks clear text; put a TLS proxy beside it and name that one: {ACCEPTED}"
            ));
        }
        let with_scheme =
            if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let uri: Uri = with_scheme.parse().map_err(|_| format!("accepted is {ACCEPTED}"))?;
        let plain = uri.scheme_str() == Some("http") && matches!(uri.path(), "" | "/");
        match (plain, uri.port_u16(), uri.host()) {
            (true, Some(_), Some(host)) if !host.is_empty() => Ok(Self::Tcp(uri)),
            _ => Err(format!("accepted is {ACCEPTED}")),
        }
    }
}

/// The name of this machine.
pub fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Starts the runtime of a client: one thread is plenty.
pub fn runtime() -> Result<tokio::runtime::Runtime, CliError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| CliError::new(Exit::Failed, format!("could not start: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_written_form_of_an_address_is_read() {
        for (text, shown) in [
            ("unix:/run/r.sock", "unix:/run/r.sock"),
            ("unix:///run/r.sock", "unix:/run/r.sock"),
            ("http://reprise:7070", "http://reprise:7070"),
            ("reprise.svc:7070", "http://reprise.svc:7070"),
            ("[::1]:7070", "http://[::1]:7070"),
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), shown);
        }
    }

    #[test]
    fn other_addresses_are_refused_with_what_is_accepted() {
        for text in ["", "reprise", "unix:r.sock", "https://r:1", "ftp://r:1", "http://r:1/x", ":7"]
        {
            let refusal = text.parse::<Address>().unwrap_err();
            assert!(refusal.contains("unix:/path"), "{text}: {refusal}");
        }
    }
}
