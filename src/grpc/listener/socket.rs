//! Addresses, the rule of what may be bound, and the sockets themselves.

use std::fmt;
use std::fs::{self, Permissions};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::task::{Context, Poll, ready};

use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream};
use tokio_util::either::Either;

use super::ListenerSettings;

/// Connections the system holds for us between two accepts.
const BACKLOG: u32 = 1024;

/// Where to listen: `127.0.0.1:7171`, `[::1]:7171` or `unix:/run/reprise.sock`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// An IP address and a port; port 0 lets the system choose.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

/// A text that names no address.
#[derive(Debug, thiserror::Error)]
#[error("{given:?} is not an address; accepted: IP:PORT, [IPv6]:PORT, or unix:PATH")]
pub struct AddressError {
    given: String,
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let refused = || AddressError { given: text.to_owned() };
        match text.strip_prefix("unix:") {
            Some("") => Err(refused()),
            Some(path) => Ok(Self::Unix(path.into())),
            None => text.parse().map(Self::Tcp).map_err(|_| refused()),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Why an address could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Other machines could reach it, and nobody said that they may.
    #[error(
        "will not listen on {0}: connections carry no TLS and callers no identity, so whoever \
         reaches it may do anything; listen on loopback or a Unix socket, or set insecure = true"
    )]
    Exposed(SocketAddr),
    /// A process answers on the socket's path.
    #[error("{0} is in use: another process is listening on it")]
    InUse(PathBuf),
    /// The path names something that is not a socket; it is left alone.
    #[error("{0} exists and is not a socket; choose another path or remove it")]
    NotASocket(PathBuf),
    /// The system refused.
    #[error("cannot listen on {address}")]
    Io {
        /// What was to be bound.
        address: Address,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Who is at the other end; an extension of every request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// An address on the network.
    Tcp(SocketAddr),
    /// A process on this machine; its user and process ids, as the system says.
    Unix {
        /// User id, absent when the system would not say.
        uid: Option<u32>,
        /// Process id, absent when the system would not say.
        pid: Option<i32>,
    },
}

impl Peer {
    /// The network address, in its IPv4 form where it has one.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(address) => Some(address.ip().to_canonical()),
            Self::Unix { .. } => None,
        }
    }

    fn of_unix(stream: &UnixStream) -> Self {
        let credentials = stream.peer_cred().ok();
        Self::Unix {
            uid: credentials.as_ref().map(|of| of.uid()),
            pid: credentials.and_then(|of| of.pid()),
        }
    }
}

pub(super) type Stream = Either<TcpStream, UnixStream>;

pub(super) struct Accepted {
    pub stream: Stream,
    pub peer: Peer,
}

#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpListener, SocketAddr),
    Unix(UnixListener, SocketFile),
}

impl Socket {
    pub fn bind(address: &Address, settings: &ListenerSettings) -> Result<Self, BindError> {
        let failed = |source| BindError::Io { address: address.clone(), source };
        match address {
            Address::Tcp(ip) if !settings.insecure && !ip.ip().to_canonical().is_loopback() => {
                Err(BindError::Exposed(*ip))
            }
            Address::Tcp(ip) => bind_tcp(*ip).map_err(failed),
            Address::Unix(path) => {
                clear_way(path)?;
                bind_unix(path, settings.socket_mode).map_err(failed)
            }
        }
    }

    pub fn address(&self) -> Address {
        match self {
            Self::Tcp(_, address) => Address::Tcp(*address),
            Self::Unix(_, file) => Address::Unix(file.path.clone()),
        }
    }

    pub fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Accepted>> {
        Poll::Ready(Ok(match self {
            Self::Tcp(listener, _) => {
                let (stream, from) = ready!(listener.poll_accept(cx))?;
                // Answers are small and wanted now. It can only fail on a
                // connection that is gone already, which serving it will find.
                let _ = stream.set_nodelay(true);
                Accepted { stream: Either::Left(stream), peer: Peer::Tcp(from) }
            }
            Self::Unix(listener, _) => {
                let (stream, _) = ready!(listener.poll_accept(cx))?;
                let peer = Peer::of_unix(&stream);
                Accepted { stream: Either::Right(stream), peer }
            }
        }))
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<Socket> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    // Without it a restart waits for the connections of the last life to expire.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    let listener = socket.listen(BACKLOG)?;
    let bound = listener.local_addr()?;
    Ok(Socket::Tcp(listener, bound))
}

/// Refuses a path that somebody answers on, or that is no socket. A socket that
/// nobody answers on was left by a dead process, and is replaced by `bind_unix`.
fn clear_way(path: &Path) -> Result<(), BindError> {
    let Ok(found) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    if !found.file_type().is_socket() {
        return Err(BindError::NotASocket(path.to_owned()));
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(BindError::Io { address: Address::Unix(path.to_owned()), source }),
        Ok(_) => Err(BindError::InUse(path.to_owned())),
    }
}

/// Binds under a name of its own, sets the mode, and only then moves the socket
/// to its path: nobody sees it with other permissions, or sees it missing.
fn bind_unix(path: &Path, mode: u32) -> io::Result<Socket> {
    let mut own_name = path.as_os_str().to_owned();
    own_name.push(format!(".{}", std::process::id()));
    let own_name = PathBuf::from(own_name);
    let _ = fs::remove_file(&own_name);
    let listener = std::os::unix::net::UnixListener::bind(&own_name)?;
    let file = publish(&own_name, path, mode).inspect_err(|_| {
        let _ = fs::remove_file(&own_name);
    })?;
    listener.set_nonblocking(true)?;
    Ok(Socket::Unix(UnixListener::from_std(listener)?, file))
}

fn publish(own_name: &Path, path: &Path, mode: u32) -> io::Result<SocketFile> {
    fs::set_permissions(own_name, Permissions::from_mode(mode))?;
    let inode = inode(own_name)?;
    fs::rename(own_name, path)?;
    Ok(SocketFile { path: path.to_owned(), inode })
}

/// A socket's file, removed when dropped unless somebody has replaced it since.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    inode: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if inode(&self.path).is_ok_and(|found| found == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// What tells one file from another: device and number.
fn inode(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()))
}
