//! A server by itself.

use std::{
    fs,
    net::SocketAddr,
    ops::{Deref, DerefMut},
    path::PathBuf,
};

use redis::{Client, TlsCertificates};
use tempfile::TempDir;

use super::{
    Kind, address,
    certificates::Certificates,
    node::{Endpoint, Mode, Node},
};

/// Of those who have to log in.
const PASSWORD: &str = "not-a-secret";
/// Of the administrator, where others may not do everything.
const ADMINISTRATOR: &str = "administrator";

/// How a server is set up. The default: no persistence, no bounds, TCP, open
/// to everybody.
#[derive(Clone, Default)]
pub struct Options {
    pub aof: Aof,
    /// In bytes; past it, writes are refused.
    pub maxmemory: Option<u64>,
    pub access: Access,
    pub link: Link,
    /// A clock of its own, not for Redis 7.0, that [`Standalone::set_clock`] sets.
    pub own_clock: bool,
    /// Further lines of the configuration.
    pub configuration: &'static [&'static str],
}

/// When the append-only file is synced.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub enum Aof {
    /// There is none: a restart forgets everything.
    #[default]
    Off,
    /// Before each answer.
    Always,
    EverySecond,
    /// When the system likes.
    Never,
}

/// Who is let in.
#[derive(Clone, Copy, Default)]
pub enum Access {
    #[default]
    Open,
    /// Who knows the password, as the default user.
    Password,
    /// The user `reprise` with its password, held to these rules
    /// (`~rp:* +@all -@dangerous`).
    Rules(&'static str),
}

/// What clients connect by.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub enum Link {
    #[default]
    Tcp,
    /// The server shows a certificate; Redis 7.0 alone.
    Tls,
    /// So do clients.
    MutualTls,
    UnixSocket,
}

/// A server by itself.
pub struct Standalone {
    node: Node,
    url: Url,
}

/// What [`Standalone::url`] is put together from.
struct Url {
    link: Link,
    user: &'static str,
    socket: PathBuf,
    parameters: Vec<(&'static str, PathBuf)>,
}

impl Standalone {
    /// Starts it, and waits until it answers.
    pub async fn start(kind: Kind, options: Options) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let address = address::fresh();
        let mut setup = Setup::new(folder, address);
        setup.persist(options.aof);
        setup.listen(options.link);
        setup.admit(options.access);
        setup.lines.extend(options.maxmemory.map(|bytes| format!("maxmemory {bytes}")));
        setup.lines.extend(options.configuration.iter().map(|&line| line.to_owned()));
        let endpoint = setup.administrator();
        let Setup { folder, lines, url, .. } = setup;
        let mode = if options.own_clock { Mode::ServerWithClock } else { Mode::Server };
        let node = Node::start(kind, mode, folder, endpoint, &lines).await;
        Self { node, url }
    }

    /// How a client is told to reach it.
    pub fn url(&self) -> String {
        self.url.at(self.node.address())
    }

    /// The same through a proxy.
    pub fn url_at(&self, address: SocketAddr) -> String {
        self.url.at(address)
    }
}

impl Deref for Standalone {
    type Target = Node;

    fn deref(&self) -> &Node {
        &self.node
    }
}

impl DerefMut for Standalone {
    fn deref_mut(&mut self) -> &mut Node {
        &mut self.node
    }
}

/// Gathers the configuration and what clients have to know of it.
struct Setup {
    folder: TempDir,
    address: SocketAddr,
    lines: Vec<String>,
    url: Url,
    administrator: Option<&'static str>,
    certificates: Option<TlsCertificates>,
}

impl Setup {
    fn new(folder: TempDir, address: SocketAddr) -> Self {
        let socket = folder.path().join("socket");
        let url = Url { link: Link::Tcp, user: "", socket, parameters: Vec::new() };
        Self { folder, address, lines: Vec::new(), url, administrator: None, certificates: None }
    }

    fn persist(&mut self, aof: Aof) {
        let fsync = match aof {
            Aof::Off => return,
            Aof::Always => "always",
            Aof::EverySecond => "everysec",
            Aof::Never => "no",
        };
        self.lines.extend(["appendonly yes".to_owned(), format!("appendfsync {fsync}")]);
    }

    fn listen(&mut self, link: Link) {
        self.url.link = link;
        let port = self.address.port();
        match link {
            Link::Tcp => self.lines.push(format!("port {port}")),
            Link::Tls | Link::MutualTls => self.listen_with_tls(link),
            Link::UnixSocket => self
                .lines
                .extend(["port 0".to_owned(), format!("unixsocket {}", self.url.socket.display())]),
        }
    }

    fn listen_with_tls(&mut self, link: Link) {
        let certificates = Certificates::issue(self.folder.path());
        let clients = if link == Link::MutualTls { "yes" } else { "no" };
        self.lines.extend([
            "port 0".to_owned(),
            format!("tls-port {}", self.address.port()),
            format!("tls-ca-cert-file {}", certificates.ca.display()),
            format!("tls-cert-file {}", certificates.server.certificate.display()),
            format!("tls-key-file {}", certificates.server.key.display()),
            format!("tls-auth-clients {clients}"),
        ]);
        self.certificates = Some(certificates.of_client());
        self.url.parameters.push(("ca_file", certificates.ca));
        if link == Link::MutualTls {
            self.url.parameters.push(("cert_file", certificates.client.certificate));
            self.url.parameters.push(("key_file", certificates.client.key));
        }
    }

    fn admit(&mut self, access: Access) {
        match access {
            Access::Open => return,
            Access::Password => {
                self.administrator = Some(PASSWORD);
                self.lines.push(format!("requirepass {PASSWORD}"));
            }
            Access::Rules(rules) => {
                self.administrator = Some(ADMINISTRATOR);
                self.url.user = "reprise";
                self.lines.push(format!("requirepass {ADMINISTRATOR}"));
                self.lines.push(format!("user reprise on >{PASSWORD} {rules}"));
            }
        }
        let file = self.folder.path().join("password");
        // As editors leave it: with an end of line.
        fs::write(&file, format!("{PASSWORD}\n")).unwrap();
        self.url.parameters.push(("password_file", file));
    }

    /// The administrator's way in, which knows no `password_file`.
    fn administrator(&self) -> Endpoint {
        let login = self.administrator.map_or(String::new(), |password| format!(":{password}@"));
        let Self { address, .. } = self;
        let url = match self.url.link {
            Link::Tcp => format!("redis://{login}{address}"),
            Link::Tls | Link::MutualTls => format!("rediss://{login}{address}"),
            Link::UnixSocket => {
                let password =
                    self.administrator.map_or(String::new(), |word| format!("?pass={word}"));
                format!("redis+unix://{}{password}", self.url.socket.display())
            }
        };
        let client = match &self.certificates {
            None => Client::open(url),
            Some(certificates) => {
                // Somebody else may have chosen it already; there is only one.
                let _ = rustls::crypto::ring::default_provider().install_default();
                Client::build_with_tls(url, certificates.clone())
            }
        };
        Endpoint::new(*address, client.unwrap())
    }
}

impl Url {
    fn at(&self, address: SocketAddr) -> String {
        let Self { user, .. } = self;
        let at = if user.is_empty() { "" } else { "@" };
        let place = match self.link {
            Link::Tcp => format!("redis://{user}{at}{address}"),
            Link::Tls | Link::MutualTls => format!("rediss://{user}{at}{address}"),
            Link::UnixSocket => format!("redis+unix://{user}{at}{}", self.socket.display()),
        };
        let parameters = self.parameters.iter();
        let query: Vec<_> =
            parameters.map(|(name, file)| format!("{name}={}", file.display())).collect();
        if query.is_empty() { place } else { format!("{place}?{}", query.join("&")) }
    }
}
