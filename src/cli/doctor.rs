//! `reprise doctor`: why the service does not answer, or does not answer as
//! it should. Each check says what it found and what to do about it.

use std::{io, os::unix::fs::FileTypeExt as _, path::Path, process::ExitCode, time::Duration};

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use tokio::{
    net::{TcpStream, UnixStream, lookup_host},
    time::{Instant, timeout},
};
use tonic::{Code, Status, transport::Channel};
use tonic_health::pb::health_check_response::ServingStatus;

use super::{
    Global, call,
    connect::Address,
    error::{CliError, headline, unanswered},
    exit::Exit,
    healthcheck,
    output::{self, Format},
    text,
};
use crate::proto::{
    GetNamespaceRequest, GetServerInfoRequest, GetServerInfoResponse,
    admin_service_client::AdminServiceClient,
};

/// Clocks further apart than this make deadlines given as instants miss.
const SKEW_MAX: Duration = Duration::from_secs(1);

/// What a check found.
#[derive(Debug, Serialize)]
struct Finding {
    check: &'static str,
    grade: Grade,
    found: String,
    /// What to do about it. `None` when nothing needs doing.
    next: Option<String>,
}

/// How good that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Grade {
    Ok,
    Warn,
    Fail,
}

impl Finding {
    fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, grade: Grade::Ok, found: found.into(), next: None }
    }

    fn warn(check: &'static str, found: impl Into<String>, next: impl Into<String>) -> Self {
        Self { check, grade: Grade::Warn, found: found.into(), next: Some(next.into()) }
    }

    fn fail(check: &'static str, found: impl Into<String>, next: impl Into<String>) -> Self {
        Self { check, grade: Grade::Fail, found: found.into(), next: Some(next.into()) }
    }
}

/// Looks at everything, as far as it can be reached, and tells what it found.
pub async fn run(global: &Global) -> Result<ExitCode, CliError> {
    let mut findings = vec![address(global)];
    let reached = reach(&global.address(), global.call_timeout).await;
    let reachable = reached.grade == Grade::Ok;
    findings.push(reached);
    if reachable {
        findings.extend(served(global).await);
    }
    tell(global, &findings)?;
    let failed = findings.iter().any(|finding| finding.grade == Grade::Fail);
    let exit = match (reachable, failed) {
        (false, _) => Exit::Unavailable,
        (true, true) => Exit::Failed,
        (true, false) => Exit::Ok,
    };
    Ok(exit.into())
}

fn address(global: &Global) -> Finding {
    let address = global.address();
    let source = match global.addr {
        Some(_) => "as given by --addr or REPRISE_ADDR",
        None => "by default, since no --addr or REPRISE_ADDR is given",
    };
    Finding::ok("address", format!("{address}, {source}"))
}

/// Whether anybody listens there.
async fn reach(address: &Address, patience: Duration) -> Finding {
    match address {
        Address::Socket(path) => reach_socket(path, patience).await,
        Address::Tcp(uri) => {
            let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
            reach_port(host, uri.port_u16().unwrap_or_default(), patience).await
        }
    }
}

async fn reach_socket(path: &Path, patience: Duration) -> Finding {
    let shown = path.display();
    match path.metadata() {
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => return closed_folder(path),
        Err(e) => {
            return Finding::fail(
                "reach",
                format!("{shown}: {e}"),
                "start the service (`reprise serve`), or name its address with --addr",
            );
        }
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Finding::fail(
                "reach",
                format!("{shown} is not a socket"),
                "name the service's socket with --addr unix:/path",
            );
        }
        Ok(_) => {}
    }
    match in_time(patience, UnixStream::connect(path)).await {
        Ok(_) => Finding::ok("reach", format!("{shown} takes connections")),
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Finding::fail(
            "reach",
            format!("{shown} may not be written to by this user"),
            "join the group that owns the socket (`ls -l` shows it), or let the service widen its mode",
        ),
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => Finding::fail(
            "reach",
            format!("{shown} was left behind by a service that is gone"),
            "start the service again; it replaces the socket",
        ),
        Err(e) => Finding::fail("reach", format!("{shown}: {e}"), "look at the service's log"),
    }
}

fn closed_folder(path: &Path) -> Finding {
    Finding::fail(
        "reach",
        format!("{} lies in a folder that this user may not enter", path.display()),
        "join the group that owns the folder, or use an address over TCP",
    )
}

async fn reach_port(host: &str, port: u16, patience: Duration) -> Finding {
    let addresses = match in_time(patience, lookup_host((host, port))).await {
        Ok(addresses) => addresses.collect::<Vec<_>>(),
        Err(e) => {
            return Finding::fail(
                "reach",
                format!("the name {host} leads nowhere: {e}"),
                "check the host in --addr; in a cluster it is service.namespace.svc",
            );
        }
    };
    match in_time(patience, TcpStream::connect(&*addresses)).await {
        Ok(_) => Finding::ok("reach", format!("{host}:{port} takes connections")),
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => Finding::fail(
            "reach",
            format!("nobody listens on {host}:{port}"),
            "start the service (`reprise serve`), or name its address with --addr",
        ),
        Err(e) => Finding::fail(
            "reach",
            format!("{host}:{port}: {e}"),
            "a firewall or network policy may be in the way",
        ),
    }
}

async fn in_time<T>(
    patience: Duration,
    work: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    let late = || io::Error::new(io::ErrorKind::TimedOut, "no answer in time");
    timeout(patience, work).await.unwrap_or_else(|_| Err(late()))
}

/// What the service says, when something listens at its address.
async fn served(global: &Global) -> Vec<Finding> {
    let channel = global.address().channel(global.call_timeout);
    let asked_at = Timestamp::now();
    let info = info(channel.clone(), global.call_timeout).await;
    let middle = halfway(asked_at, Timestamp::now());
    let mut findings = vec![protocol(&global.address(), info.as_ref().err())];
    if let Err(status) = &info
        && unanswered(status)
    {
        return findings;
    }
    let until = Instant::now() + global.call_timeout;
    findings.push(health(channel.clone(), until).await);
    if let Ok(info) = info {
        findings.extend([version(&info), store(&info), clock(&info, middle), policy_file(&info)]);
    }
    findings.push(namespace(channel, until, global).await);
    findings
}

async fn info(channel: Channel, patience: Duration) -> Result<GetServerInfoResponse, Status> {
    let mut client = AdminServiceClient::new(channel);
    let request = call::request(GetServerInfoRequest {}, patience);
    let until = Instant::now() + patience;
    Ok(call::in_time(until, client.get_server_info(request)).await?.into_inner())
}

/// Whether it is our service that listens there. Over a socket, a server
/// refuses clients that name the path as the authority; this one does not.
fn protocol(address: &Address, error: Option<&Status>) -> Finding {
    match (error, address) {
        (None, Address::Tcp(_)) => Finding::ok("protocol", "speaks reprise.v1"),
        (None, Address::Socket(_)) => Finding::ok(
            "protocol",
            "speaks reprise.v1 (over a socket, other clients must set the authority to localhost)",
        ),
        (Some(status), _) if unanswered(status) => Finding::fail(
            "protocol",
            format!("does not speak gRPC over clear-text HTTP/2: {}", headline(status)),
            "this may be the port of metrics, or of a proxy that wants TLS; name the gRPC one",
        ),
        (Some(status), _) if status.code() == Code::Unimplemented => Finding::fail(
            "protocol",
            "speaks gRPC, but has no reprise.v1.AdminService",
            "another service listens there, or a proxy does not pass this one on",
        ),
        (Some(status), _) => Finding::fail(
            "protocol",
            format!("{}: {}", status.code(), headline(status)),
            "look at the service's log",
        ),
    }
}

async fn health(channel: Channel, until: Instant) -> Finding {
    let status = healthcheck::status(channel, healthcheck::READINESS);
    match call::in_time(until, status).await {
        Ok(ServingStatus::Serving) => Finding::ok("health", "ready"),
        Ok(status) => Finding::fail(
            "health",
            format!("not ready: {}", status.as_str_name()),
            "the service is starting, stopping, or has lost its store; its log says which",
        ),
        Err(status) => Finding::warn(
            "health",
            format!("unknown: {}", headline(&status)),
            "probes need the gRPC health service; a proxy may hold it back",
        ),
    }
}

fn version(info: &GetServerInfoResponse) -> Finding {
    let client = env!("CARGO_PKG_VERSION");
    let found = format!("client {client}, server {}", info.version);
    match info.version == client {
        true => Finding::ok("version", found),
        false => Finding::warn("version", found, "use the same version of both where you can"),
    }
}

fn store(info: &GetServerInfoResponse) -> Finding {
    let found = format!("{}: {}", info.store, info.durability);
    match info.store.as_str() {
        "memory" => Finding::warn(
            "store",
            found,
            "a restart forgets every step; give the service a data directory to keep them",
        ),
        _ => Finding::ok("store", found),
    }
}

fn clock(info: &GetServerInfoResponse, here: Timestamp) -> Finding {
    let Some(there) = info.store_time.and_then(text::from_proto_timestamp) else {
        return Finding::warn("clock", "the service did not tell its time", "update the service");
    };
    let apart = there.duration_since(here);
    let distance = text::duration(apart.unsigned_abs());
    match apart.unsigned_abs() > SKEW_MAX {
        false => Finding::ok("clock", format!("{distance} apart")),
        true => {
            let side = if apart > SignedDuration::ZERO { "behind" } else { "ahead of" };
            Finding::warn(
                "clock",
                format!("this machine is {distance} {side} the service"),
                "synchronise clocks; until then give --time-left rather than --deadline",
            )
        }
    }
}

/// The instant at which the service most likely looked at its clock.
fn halfway(from: Timestamp, to: Timestamp) -> Timestamp {
    from.saturating_add(to.duration_since(from) / 2).unwrap_or(to)
}

fn policy_file(info: &GetServerInfoResponse) -> Finding {
    match (info.policy_file.as_str(), info.policy_file_error.as_str()) {
        ("", "") => Finding::ok("policy file", "none is applied"),
        (file, "") => Finding::ok("policy file", format!("{file} is applied")),
        (file, error) => Finding::fail(
            "policy file",
            format!("{file}: its last change is not applied: {error}"),
            "correct it; `reprise policy check` says what is wrong",
        ),
    }
}

async fn namespace(channel: Channel, until: Instant, global: &Global) -> Finding {
    let name = global.namespace.clone();
    let request = GetNamespaceRequest { namespace: name.clone() };
    let mut client = AdminServiceClient::new(channel);
    match call::in_time(until, client.get_namespace(request)).await {
        Ok(_) => Finding::ok("namespace", format!("{name} exists")),
        Err(status) if status.code() == Code::NotFound => Finding::fail(
            "namespace",
            format!("{name} does not exist"),
            format!("`reprise namespace create {name}`, or name another with --namespace"),
        ),
        Err(status) => Finding::warn(
            "namespace",
            format!("{name}: {}", headline(&status)),
            "try again; if it stays, look at the service's log",
        ),
    }
}

fn tell(global: &Global, findings: &[Finding]) -> Result<(), CliError> {
    if global.output == Format::Json {
        return output::print_json(&findings);
    }
    output::print(&findings.iter().map(line).collect::<String>())
}

fn line(finding: &Finding) -> String {
    let grade = match finding.grade {
        Grade::Ok => "ok  ",
        Grade::Warn => "warn",
        Grade::Fail => "FAIL",
    };
    let next = finding.next.as_deref().map(|next| format!("      next: {next}\n"));
    format!("{grade}  {:11}  {}\n{}", finding.check, finding.found, next.unwrap_or_default())
}
