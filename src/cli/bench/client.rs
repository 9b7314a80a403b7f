//! A gRPC caller on bare HTTP/2.
//!
//! A full client spends more on a call than the server that is to be measured,
//! and on one machine that time is taken from the server. This one sends a
//! framed message, reads the framed reply and looks at `grpc-status`.

use std::{fmt, io, path::PathBuf, str::FromStr};

use bytes::{Buf as _, Bytes, BytesMut};
use h2::client::SendRequest;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
};
use tonic::Code;

/// Length of what stands before a message: a flag for compression and 4 bytes
/// of length.
pub(super) const PREFIX_BYTES: usize = 5;

/// What a connection may hold unread, bytes. Far above what the callers of one
/// connection can have in flight, so that no reply waits for a window.
const WINDOW_BYTES: u32 = 16 * 1024 * 1024;

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Address {
    /// `host:port`.
    Tcp(String),
    /// Path of a Unix socket, written `unix:/path`.
    Unix(PathBuf),
}

impl Address {
    pub(super) fn transport(&self) -> Transport {
        match self {
            Self::Tcp(_) => Transport::Tcp,
            Self::Unix(_) => Transport::Unix,
        }
    }
}

/// How callers reach a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Transport {
    Tcp,
    Unix,
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bare = text.strip_prefix("http://").unwrap_or(text);
        match bare.strip_prefix("unix:") {
            Some("") => Err("expected a path after unix:".to_owned()),
            Some(path) => Ok(Self::Unix(PathBuf::from(path))),
            None if port_of(bare).is_some() => Ok(Self::Tcp(bare.to_owned())),
            None => Err(format!("{text} is neither host:port nor unix:/path")),
        }
    }
}

fn port_of(address: &str) -> Option<u16> {
    address.rsplit_once(':')?.1.parse().ok()
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => f.write_str(address),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A call of `RetryService`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Begin,
    Report,
    Batch,
    Get,
    UpdateTarget,
}

/// Why a call brought no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    /// The server said why.
    #[error("{code:?}: {message}")]
    Refused { code: Code, message: String },
    /// The reply is not gRPC.
    #[error("not a gRPC reply: {0}")]
    Malformed(&'static str),
    /// The connection is of no further use.
    #[error("connection broke: {0}")]
    Broken(#[from] h2::Error),
}

/// One connection, shared by its clones.
#[derive(Clone)]
pub(super) struct Connection {
    send: SendRequest<Bytes>,
    begin: Uri,
    report: Uri,
    batch: Uri,
    get: Uri,
    update_target: Uri,
    headers: HeaderMap,
}

impl Connection {
    /// Opens a connection. It lives as long as one of its clones.
    pub(super) async fn open(address: &Address) -> io::Result<Self> {
        let opened = Self::dial(address).await;
        opened.map_err(|error| {
            io::Error::new(error.kind(), format!("could not connect to {address}: {error}"))
        })
    }

    async fn dial(address: &Address) -> io::Result<Self> {
        match address {
            Address::Tcp(host) => {
                let stream = TcpStream::connect(host).await?;
                stream.set_nodelay(true)?;
                Self::over(stream, host).await
            }
            Address::Unix(path) => Self::over(UnixStream::connect(path).await?, "localhost").await,
        }
    }

    async fn over<T>(stream: T, authority: &str) -> io::Result<Self>
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (send, connection) = h2::client::Builder::new()
            .initial_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .enable_push(false)
            .handshake(stream)
            .await
            .map_err(io::Error::other)?;
        const RETRY: &str = "RetryService";
        // What ends a connection also ends the calls on it, and they say so.
        tokio::spawn(async move { drop(connection.await) });
        let uri = |service, call| {
            Uri::builder()
                .scheme("http")
                .authority(authority)
                .path_and_query(format!("/reprise.v1.{service}/{call}"))
                .build()
                .map_err(io::Error::other)
        };
        Ok(Self {
            send,
            begin: uri(RETRY, "BeginAttempt")?,
            report: uri(RETRY, "ReportAttempt")?,
            batch: uri(RETRY, "BatchReportAttempts")?,
            get: uri(RETRY, "GetStep")?,
            update_target: uri("AdminService", "UpdateTarget")?,
            headers: request_headers(),
        })
    }

    /// Sends one framed message and returns the message that answers it.
    pub(super) async fn call(&mut self, call: Call, framed: Bytes) -> Result<Bytes, CallError> {
        let mut ready = self.send.clone().ready().await?;
        let (response, mut body) = ready.send_request(self.request(call), false)?;
        body.send_data(framed, true)?;
        read_reply(response.await?).await
    }

    fn request(&self, call: Call) -> Request<()> {
        let uri = match call {
            Call::Begin => &self.begin,
            Call::Report => &self.report,
            Call::Batch => &self.batch,
            Call::Get => &self.get,
            Call::UpdateTarget => &self.update_target,
        };
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri.clone();
        *request.version_mut() = Version::HTTP_2;
        *request.headers_mut() = self.headers.clone();
        request
    }
}

fn request_headers() -> HeaderMap {
    HeaderMap::from_iter([
        (header::CONTENT_TYPE, HeaderValue::from_static("application/grpc")),
        (header::TE, HeaderValue::from_static("trailers")),
        (header::USER_AGENT, HeaderValue::from_static("reprise-bench")),
    ])
}

async fn read_reply(response: Response<h2::RecvStream>) -> Result<Bytes, CallError> {
    let (head, mut body) = response.into_parts();
    if head.status != StatusCode::OK {
        return Err(CallError::Malformed("HTTP status is not 200"));
    }
    // An error without a message comes as headers alone.
    if head.headers.contains_key("grpc-status") {
        accept(&head.headers)?;
    }
    let framed = read_body(&mut body).await?;
    let trailers = body.trailers().await?.ok_or(CallError::Malformed("no trailers"))?;
    accept(&trailers)?;
    unframe(framed)
}

/// Reads to the end. Nearly every reply is one frame, and is not copied.
async fn read_body(body: &mut h2::RecvStream) -> Result<Bytes, CallError> {
    let mut whole = Bytes::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk?;
        body.flow_control().release_capacity(chunk.len())?;
        if whole.is_empty() {
            whole = chunk;
        } else {
            let mut joined = BytesMut::with_capacity(whole.len() + chunk.len());
            joined.extend_from_slice(&whole);
            joined.extend_from_slice(&chunk);
            whole = joined.freeze();
        }
    }
    Ok(whole)
}

/// Passes `grpc-status` 0 and turns any other into an error.
fn accept(headers: &HeaderMap) -> Result<(), CallError> {
    let status = headers.get("grpc-status").ok_or(CallError::Malformed("no grpc-status"))?;
    if status.as_bytes() == b"0" {
        return Ok(());
    }
    let message = headers.get("grpc-message").and_then(|message| message.to_str().ok());
    Err(CallError::Refused {
        code: Code::from_bytes(status.as_bytes()),
        message: message.unwrap_or_default().to_owned(),
    })
}

/// Takes the one message out of its frame.
fn unframe(mut framed: Bytes) -> Result<Bytes, CallError> {
    if framed.len() < PREFIX_BYTES {
        return Err(CallError::Malformed("shorter than a frame"));
    }
    let compressed = framed.get_u8() != 0;
    let length = framed.get_u32() as usize;
    if compressed || length != framed.len() {
        return Err(CallError::Malformed("not one plain message"));
    }
    Ok(framed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_host_and_port_or_a_socket() {
        assert_eq!("127.0.0.1:50051".parse(), Ok(Address::Tcp("127.0.0.1:50051".to_owned())));
        assert_eq!("http://localhost:1".parse(), Ok(Address::Tcp("localhost:1".to_owned())));
        assert_eq!("unix:/run/r.sock".parse(), Ok(Address::Unix(PathBuf::from("/run/r.sock"))));
        for bad in ["", "localhost", "localhost:", "localhost:99999", "unix:"] {
            assert!(bad.parse::<Address>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_frame_holds_exactly_one_plain_message() {
        let unframed = |bytes: &'static [u8]| unframe(Bytes::from_static(bytes));
        assert_eq!(unframed(&[0, 0, 0, 0, 2, 7, 8]).unwrap(), Bytes::from_static(&[7, 8]));
        assert_eq!(unframed(&[0, 0, 0, 0, 0]).unwrap(), Bytes::new());
        for bad in
            [&[][..], &[0, 0, 0], &[1, 0, 0, 0, 1, 7], &[0, 0, 0, 0, 2, 7], &[0, 0, 0, 0, 0, 7]]
        {
            assert!(unframed(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_status_other_than_ok_is_an_error_with_its_message() {
        let mut headers = HeaderMap::new();
        assert!(matches!(accept(&headers), Err(CallError::Malformed(_))));
        headers.insert("grpc-status", HeaderValue::from_static("8"));
        headers.insert("grpc-message", HeaderValue::from_static("busy"));
        match accept(&headers) {
            Err(CallError::Refused { code, message }) => {
                assert_eq!((code, message.as_str()), (Code::ResourceExhausted, "busy"));
            }
            other => panic!("{other:?}"),
        }
        headers.insert("grpc-status", HeaderValue::from_static("0"));
        assert!(accept(&headers).is_ok());
    }
}
