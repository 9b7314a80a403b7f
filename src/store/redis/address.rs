//! Addresses of Redis in one form for every topology.
//!
//! ```text
//! redis://[USER@]HOST[:PORT][/DB]                  one server
//! redis+unix:///PATH                               one server, over its socket
//! redis+sentinel://HOST[:PORT],…/PRIMARY[/DB]      whichever the sentinels say is the primary
//! redis+cluster://HOST[:PORT],…                    a cluster, found through any of its nodes
//! ```
//!
//! `rediss` instead of `redis` encrypts. What does not belong into a process
//! list comes from files, by query parameters: `password_file`, `ca_file`,
//! `cert_file` and `key_file`; for sentinels with accounts of their own,
//! `sentinel_user` and `sentinel_password_file`.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    time::Duration,
};

use redis::{
    Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, IntoConnectionInfo,
    RedisConnectionInfo, TlsCertificates, TlsMode, cluster::ClusterClient,
    cluster::ClusterClientBuilder,
};

/// Where a Redis is and how it is spoken to.
#[derive(Clone)]
pub struct Address {
    topology: Topology,
    account: Account,
    sentinels: Account,
    tls: Option<Tls>,
    database: i64,
    written: String,
}

/// How servers stand together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Topology {
    /// One server, by name and port.
    Server(Host),
    /// One server, by its socket.
    Socket(PathBuf),
    /// A primary that sentinels watch.
    Sentinel {
        /// The sentinels.
        sentinels: Vec<Host>,
        /// The name that they know the primary by.
        primary: String,
    },
    /// A cluster, by some of its nodes.
    Cluster(Vec<Host>),
}

/// Name and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Name or IP address.
    pub name: String,
    /// Port.
    pub port: u16,
}

#[derive(Clone, Default)]
struct Account {
    user: Option<String>,
    password: Option<String>,
}

#[derive(Clone)]
struct Tls {
    certificates: TlsCertificates,
}

/// What is wrong with an address.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// Not the form that is read.
    #[error("{what}; expected {FORMS}")]
    Form {
        /// What is wrong.
        what: String,
    },
    /// A file that it names cannot be read.
    #[error("{parameter} {} cannot be read: {source}", file.display())]
    File {
        /// The parameter that names it.
        parameter: &'static str,
        /// The file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

const FORMS: &str = "redis://[USER@]HOST[:PORT][/DB], redis+unix:///PATH, \
     redis+sentinel://HOST[:PORT],…/PRIMARY[/DB] or redis+cluster://HOST[:PORT],…";
const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

fn form(what: impl Into<String>) -> AddressError {
    AddressError::Form { what: what.into() }
}

impl Address {
    /// Reads an address, and the files that it names.
    ///
    /// # Errors
    /// See [`AddressError`].
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let (scheme, rest) = text.split_once("://").ok_or_else(|| form("there is no scheme"))?;
        let (secure, kind) = match scheme.split_once('+') {
            None => (scheme, None),
            Some((secure, kind)) => (secure, Some(kind)),
        };
        let encrypted = match secure {
            "redis" => false,
            "rediss" => true,
            _ => return Err(form(format!("{scheme:?} is no scheme that is known"))),
        };
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let parameters = Parameters::read(query)?;
        let (user, place) = match place.split_once('@') {
            Some((user, _)) if user.contains(':') => {
                return Err(form(
                    "a password does not belong into an address, where everybody can read it; use password_file",
                ));
            }
            Some((user, place)) => (Some(user.to_owned()), place),
            None => (None, place),
        };
        let (topology, database) = topology(kind, place)?;
        let account = Account { user, password: parameters.secret("password_file")? };
        let sentinels = Account {
            user: parameters.get("sentinel_user").map(str::to_owned),
            password: parameters.secret("sentinel_password_file")?,
        };
        let tls = encrypted.then(|| parameters.tls()).transpose()?;
        Ok(Self { topology, account, sentinels, tls, database, written: text.to_owned() })
    }

    /// How the servers stand together.
    #[must_use]
    pub const fn topology(&self) -> &Topology {
        &self.topology
    }

    /// A client of one server.
    pub(super) fn server(&self, host: &Host) -> redis::RedisResult<Client> {
        self.client(self.at(host), &self.account, self.database)
    }

    /// A client of the server's socket.
    pub(super) fn socket(&self, path: &Path) -> redis::RedisResult<Client> {
        self.client(ConnectionAddr::Unix(path.to_owned()), &self.account, self.database)
    }

    /// A client of a sentinel.
    pub(super) fn sentinel(&self, host: &Host) -> redis::RedisResult<Client> {
        self.client(self.at(host), &self.sentinels, 0)
    }

    /// A client of the cluster.
    pub(super) fn cluster(
        &self,
        nodes: &[Host],
        timeout: Duration,
    ) -> redis::RedisResult<ClusterClient> {
        let nodes = nodes.iter().map(|node| self.info(self.at(node), &self.account, 0));
        let nodes: redis::RedisResult<Vec<ConnectionInfo>> = nodes.collect();
        let mut builder = ClusterClientBuilder::new(nodes?)
            // What is sent again is harmless, and what is too late is void: see
            // the scripts. More tries than this would only hide an outage.
            .retries(3)
            .min_retry_wait(20)
            .max_retry_wait(200)
            .connection_timeout(timeout)
            .response_timeout(timeout)
            .overall_response_timeout(Some(timeout * 2));
        if let Some(tls) = &self.tls {
            builder = builder.tls(TlsMode::Secure).certs(tls.certificates.clone());
        }
        builder.build()
    }

    fn at(&self, host: &Host) -> ConnectionAddr {
        let (name, port) = (host.name.clone(), host.port);
        match &self.tls {
            None => ConnectionAddr::Tcp(name, port),
            Some(_) => {
                ConnectionAddr::TcpTls { host: name, port, insecure: false, tls_params: None }
            }
        }
    }

    fn info(
        &self,
        addr: ConnectionAddr,
        account: &Account,
        database: i64,
    ) -> redis::RedisResult<ConnectionInfo> {
        let mut redis = RedisConnectionInfo::default()
            .set_db(database)
            .set_lib_name("reprise", env!("CARGO_PKG_VERSION"));
        if let Some(user) = &account.user {
            redis = redis.set_username(user);
        }
        if let Some(password) = &account.password {
            redis = redis.set_password(password);
        }
        let tcp = redis::io::tcp::TcpSettings::default().set_nodelay(true);
        Ok(addr.into_connection_info()?.set_redis_settings(redis).set_tcp_settings(tcp))
    }

    fn client(
        &self,
        addr: ConnectionAddr,
        account: &Account,
        database: i64,
    ) -> redis::RedisResult<Client> {
        let info = self.info(addr, account, database)?;
        match &self.tls {
            Some(tls) if !matches!(info.addr(), ConnectionAddr::Unix(_)) => {
                Client::build_with_tls(info, tls.certificates.clone())
            }
            _ => Client::open(info),
        }
    }
}

/// As it was written: no secret stands in it.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({})", self.written)
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.contains(':') {
            write!(f, "[{}]:{}", self.name, self.port)
        } else {
            write!(f, "{}:{}", self.name, self.port)
        }
    }
}

fn topology(kind: Option<&str>, place: &str) -> Result<(Topology, i64), AddressError> {
    if kind == Some("unix") {
        return match place.strip_prefix('/') {
            Some(_) => Ok((Topology::Socket(place.into()), 0)),
            None => Err(form("a socket's path has to be absolute")),
        };
    }
    let mut parts = place.trim_end_matches('/').split('/');
    let hosts = parts.next().unwrap_or_default();
    let rest: Vec<&str> = parts.collect();
    match (kind, &*rest) {
        (None, []) => Ok((Topology::Server(one(hosts)?), 0)),
        (None, [database]) => Ok((Topology::Server(one(hosts)?), number(database)?)),
        (Some("sentinel"), [primary, rest @ ..]) if rest.len() <= 1 && !primary.is_empty() => {
            let database = rest.first().map_or(Ok(0), |database| number(database))?;
            let sentinels = many(hosts, SENTINEL_PORT)?;
            Ok((Topology::Sentinel { sentinels, primary: (*primary).to_owned() }, database))
        }
        (Some("sentinel"), _) => Err(form("the sentinels' name of the primary is missing")),
        (Some("cluster"), []) => Ok((Topology::Cluster(many(hosts, PORT)?), 0)),
        (Some("cluster"), _) => Err(form("a cluster has no databases")),
        (Some(kind), _) if kind != "cluster" => Err(form(format!("{kind:?} is no topology"))),
        _ => Err(form(format!("{place:?} has too many parts"))),
    }
}

fn number(text: &str) -> Result<i64, AddressError> {
    text.parse()
        .ok()
        .filter(|database| (0..=9999).contains(database))
        .ok_or_else(|| form(format!("{text:?} is no number of a database")))
}

fn one(text: &str) -> Result<Host, AddressError> {
    match &mut *many(text, PORT)? {
        [host] => Ok(host.clone()),
        _ => Err(form("several servers stand together by sentinels or as a cluster; say which")),
    }
}

fn many(text: &str, port: u16) -> Result<Vec<Host>, AddressError> {
    text.split(',').map(|host| self::host(host, port)).collect()
}

fn host(text: &str, port: u16) -> Result<Host, AddressError> {
    let bad = || form(format!("{text:?} is no HOST[:PORT]"));
    let (name, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((name, "")) => (name, port),
        Some((name, rest)) => {
            let written = rest.strip_prefix(':').ok_or_else(bad)?;
            (name, written.parse().map_err(|_| bad())?)
        }
        None => match text.split_once(':') {
            Some((name, written)) => (name, written.parse().map_err(|_| bad())?),
            None => (text, port),
        },
    };
    if name.is_empty() || port == 0 {
        return Err(bad());
    }
    Ok(Host { name: name.to_owned(), port })
}

/// Query parameters that are known.
struct Parameters(Vec<(&'static str, String)>);

const PARAMETERS: [&str; 6] = [
    "password_file",
    "ca_file",
    "cert_file",
    "key_file",
    "sentinel_user",
    "sentinel_password_file",
];

impl Parameters {
    fn read(query: &str) -> Result<Self, AddressError> {
        let mut read = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let known = PARAMETERS.iter().find(|known| **known == name);
            match known {
                Some(known) if !value.is_empty() => read.push((*known, value.to_owned())),
                Some(known) => return Err(form(format!("parameter {known} has no value"))),
                None => {
                    let known = PARAMETERS.join(", ");
                    return Err(form(format!("{name:?} is no parameter; there are {known}")));
                }
            }
        }
        Ok(Self(read))
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| &**value)
    }

    fn file(&self, parameter: &'static str) -> Result<Option<Vec<u8>>, AddressError> {
        let Some(file) = self.get(parameter) else { return Ok(None) };
        fs::read(file).map(Some).map_err(|source| AddressError::File {
            parameter,
            file: file.into(),
            source,
        })
    }

    /// The first line of a file.
    fn secret(&self, parameter: &'static str) -> Result<Option<String>, AddressError> {
        let text = self.file(parameter)?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        Ok(text.map(|text| text.lines().next().unwrap_or_default().to_owned()))
    }

    fn tls(&self) -> Result<Tls, AddressError> {
        // TLS takes its cryptography from one provider a process. Whoever uses
        // this as a library may have chosen another one before.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client_tls = match (self.file("cert_file")?, self.file("key_file")?) {
            (Some(client_cert), Some(client_key)) => {
                Some(ClientTlsConfig { client_cert, client_key })
            }
            (None, None) => None,
            _ => return Err(form("cert_file and key_file come together")),
        };
        Ok(Tls { certificates: TlsCertificates { client_tls, root_cert: self.file("ca_file")? } })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Topology {
        Address::parse(text).unwrap().topology
    }

    fn hosts(names: &[(&str, u16)]) -> Vec<Host> {
        names.iter().map(|(name, port)| Host { name: (*name).to_owned(), port: *port }).collect()
    }

    #[test]
    fn every_topology_has_a_form() {
        assert_eq!(parsed("redis://a"), Topology::Server(hosts(&[("a", 6379)])[0].clone()));
        assert_eq!(
            parsed("rediss://u@[::1]:7/2"),
            Topology::Server(hosts(&[("::1", 7)])[0].clone())
        );
        assert_eq!(parsed("redis+unix:///run/r.sock"), Topology::Socket("/run/r.sock".into()));
        assert_eq!(
            parsed("redis+sentinel://a,b:5/main/3"),
            Topology::Sentinel {
                sentinels: hosts(&[("a", 26379), ("b", 5)]),
                primary: "main".to_owned()
            }
        );
        assert_eq!(
            parsed("redis+cluster://a:1,b:2"),
            Topology::Cluster(hosts(&[("a", 1), ("b", 2)]))
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, what) in [
            ("localhost:6379", "no scheme"),
            ("http://a", "\"http\""),
            ("redis://u:secret@a", "password_file"),
            ("redis://a:x", "HOST[:PORT]"),
            ("redis://a,b", "several"),
            ("redis://a/x", "number of a database"),
            ("redis+sentinel://a", "name of the primary"),
            ("redis+cluster://a/1", "no databases"),
            ("redis+ring://a", "no topology"),
            ("redis://a?colour=red", "\"colour\""),
            ("redis://a?ca_file=", "no value"),
            ("redis://a?password_file=/nowhere/at/all", "cannot be read"),
            ("rediss://a?key_file=/dev/null", "come together"),
            ("redis+unix://relative", "absolute"),
        ] {
            let error = Address::parse(text).unwrap_err().to_string();
            assert!(error.contains(what), "{text}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
