//! Admission as a tower layer on an HTTP service.

use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::{Request, Response};
use http_body::{Body, Frame};
use tokio::time::{Instant, Sleep, sleep_until};
use tower::{Layer, Service};

use super::call::{HEAD_LEN, message_end, namespace_in, time_left};
use super::{Admission, CallInfo, Class, Entry, Permit, Refusal, Ticket};

/// Puts [`Admission`] before a service.
#[derive(Debug, Clone)]
pub struct AdmissionLayer {
    admission: Admission,
    class_of: fn(&str) -> Option<Class>,
}

impl AdmissionLayer {
    /// `class_of` says what a call is for by its path, none when it passes freely;
    /// [`super::class_of`] knows ours.
    pub fn new(admission: Admission, class_of: fn(&str) -> Option<Class>) -> Self {
        Self { admission, class_of }
    }
}

impl<S> Layer<S> for AdmissionLayer {
    type Service = AdmissionService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        AdmissionService { inner, layer: self.clone() }
    }
}

/// A service behind [`Admission`].
#[derive(Debug, Clone)]
pub struct AdmissionService<S> {
    inner: S,
    layer: AdmissionLayer,
}

impl<S, B, R> Service<Request<B>> for AdmissionService<S>
where
    S: Service<Request<Heard<B>>, Response = Response<R>> + Clone,
    S::Future: Future<Output = Result<Response<R>, S::Error>> + Send + 'static,
    S::Error: Send + 'static,
    B: Body<Data = Bytes> + Unpin,
    R: Default + Send + 'static,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = AdmissionFuture<S, B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // The one that said it was ready is the one to call.
        let spare = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, spare);
        let Some(class) = (self.layer.class_of)(request.uri().path()) else {
            let passing = inner.call(request.map(Heard::unheard));
            return AdmissionFuture(Stage::Passing(Box::pin(passing)));
        };
        let arrived_at = Instant::now();
        AdmissionFuture(Stage::Hearing(Box::new(Hearing {
            inner,
            class,
            arrived_at,
            deadline: arrived_at + time_left(request.headers()),
            request: request.map(Heard::unheard),
            patience: None,
            admission: self.layer.admission.clone(),
        })))
    }
}

/// One call on its way: heard, let in, done.
pub struct AdmissionFuture<S, B>(Stage<S, B>)
where
    S: Service<Request<Heard<B>>>,
    S::Future: Future + Send + 'static,
    <S::Future as Future>::Output: Send,
    B: Body;

enum Stage<S, B>
where
    S: Service<Request<Heard<B>>>,
    S::Future: Future + Send + 'static,
    <S::Future as Future>::Output: Send,
    B: Body,
{
    Passing(Pin<Box<S::Future>>),
    Hearing(Box<Hearing<S, B>>),
    Queued(Box<Hearing<S, B>>, Ticket),
    Working(Uninterrupted<S::Future>),
    Done,
}

/// A call that has not been let in.
struct Hearing<S, B: Body> {
    inner: S,
    class: Class,
    arrived_at: Instant,
    deadline: Instant,
    request: Request<Heard<B>>,
    /// Set once something had to be waited for.
    patience: Option<Pin<Box<Sleep>>>,
    admission: Admission,
}

// Nothing in it is pinned in place: what has to be is in a box of its own.
impl<S, B> Unpin for AdmissionFuture<S, B>
where
    S: Service<Request<Heard<B>>>,
    S::Future: Future + Send + 'static,
    <S::Future as Future>::Output: Send,
    B: Body,
{
}

impl<S, B, R> Future for AdmissionFuture<S, B>
where
    S: Service<Request<Heard<B>>, Response = Response<R>>,
    S::Future: Future<Output = Result<Response<R>, S::Error>> + Send + 'static,
    S::Error: Send + 'static,
    B: Body<Data = Bytes> + Unpin,
    R: Default + Send + 'static,
{
    type Output = Result<Response<R>, S::Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let (hearing, entry) = match std::mem::replace(&mut self.0, Stage::Done) {
                Stage::Passing(mut call) => {
                    let done = call.as_mut().poll(cx);
                    if done.is_pending() {
                        self.0 = Stage::Passing(call);
                    }
                    return done;
                }
                Stage::Working(mut work) => {
                    let done = Pin::new(&mut work).poll(cx);
                    if done.is_pending() {
                        self.0 = Stage::Working(work);
                    }
                    return done;
                }
                Stage::Hearing(mut hearing) => match hearing.poll(cx) {
                    Poll::Pending => {
                        self.0 = Stage::Hearing(hearing);
                        return Poll::Pending;
                    }
                    Poll::Ready(entry) => (hearing, entry),
                },
                Stage::Queued(hearing, mut ticket) => match Pin::new(&mut ticket).poll(cx) {
                    Poll::Pending => {
                        self.0 = Stage::Queued(hearing, ticket);
                        return Poll::Pending;
                    }
                    Poll::Ready(Ok(permit)) => (hearing, Entry::Admitted(permit)),
                    Poll::Ready(Err(refusal)) => (hearing, Entry::Refused(refusal)),
                },
                Stage::Done => unreachable!("polled after it was done"),
            };
            self.0 = match entry {
                Entry::Queued(ticket) => Stage::Queued(hearing, ticket),
                Entry::Admitted(permit) => Stage::Working(hearing.begin(permit)),
                Entry::Refused(refusal) => {
                    return Poll::Ready(Ok(hearing.admission.refusal_status(refusal).into_http()));
                }
            };
        }
    }
}

impl<S, B> Hearing<S, B>
where
    S: Service<Request<Heard<B>>>,
    S::Future: Future + Send + 'static,
    <S::Future as Future>::Output: Send,
    B: Body<Data = Bytes> + Unpin,
{
    /// Hears the call out, then asks for a slot.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Entry> {
        let message_max = self.admission.0.settings.message_max;
        if self.request.body_mut().poll_hear(cx, message_max).is_pending() {
            let deadline = self.deadline;
            let patience = self.patience.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
            ready!(patience.as_mut().poll(cx));
            self.admission.0.stats.refused_late.fetch_add(1, Ordering::Relaxed);
            return Poll::Ready(Entry::Refused(Refusal::RequestTooLate));
        }
        // Waiting for the client is not waiting for us.
        let arrived_at = if self.patience.is_some() { Instant::now() } else { self.arrived_at };
        Poll::Ready(self.admission.enter(CallInfo {
            class: self.class,
            namespace: self.request.body().namespace(),
            arrived_at,
            deadline: self.deadline,
        }))
    }

    fn begin(mut self, permit: Permit) -> Uninterrupted<S::Future> {
        Uninterrupted::new(self.inner.call(self.request), permit)
    }
}

/// Work that is done to its end once it has begun. Dropped before, it moves to a
/// task of its own and ends there: a caller that leaves must not leave half-done
/// work behind. The permit is given back when the work has ended, not before.
pub struct Uninterrupted<F>
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    /// None once it has ended.
    work: Option<(Pin<Box<F>>, Permit)>,
}

impl<F> Uninterrupted<F>
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    /// Work let in with `permit`. It begins when first polled or dropped.
    pub fn new(work: F, permit: Permit) -> Self {
        Self { work: Some((Box::pin(work), permit)) }
    }
}

impl<F> Future for Uninterrupted<F>
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let (work, _) = self.work.as_mut().expect("not polled again after its end");
        let output = ready!(work.as_mut().poll(cx));
        self.work = None;
        Poll::Ready(output)
    }
}

impl<F> Drop for Uninterrupted<F>
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn drop(&mut self) {
        let Some((work, permit)) = self.work.take() else {
            return;
        };
        // Work that panicked has ended; and where no runtime is left, nothing can
        // be finished.
        if std::thread::panicking() {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        permit.count_detached();
        runtime.spawn(async move {
            drop(work.await);
            drop(permit);
        });
    }
}

/// A request body whose first message has been listened to. It yields what has
/// been heard, in one piece or two, and then the rest.
#[derive(Debug)]
pub struct Heard<B: Body> {
    /// The first piece. In almost every call it is the whole message.
    head: Bytes,
    /// What came after it. Gathered, so that a message sent byte by byte costs no
    /// more to keep than another.
    tail: BytesMut,
    /// What ended the listening, if it was not data.
    end: Option<Result<Frame<Bytes>, B::Error>>,
    rest: B,
}

impl<B: Body> Heard<B> {
    fn unheard(rest: B) -> Self {
        Self { head: Bytes::new(), tail: BytesMut::new(), end: None, rest }
    }

    fn take_in(&mut self, data: Bytes) {
        if self.head.is_empty() {
            self.head = data;
        } else if self.head.len() < HEAD_LEN {
            self.head = [&self.head[..], &data[..]].concat().into();
        } else {
            self.tail.extend_from_slice(&data);
        }
    }

    fn is_enough(&self, message_max: usize) -> bool {
        let heard = self.head.len() + self.tail.len();
        message_end(&self.head).is_some_and(|end| end <= heard || message_max < end)
    }

    fn namespace(&self) -> &str {
        namespace_in(&self.head)
    }
}

impl<B> Heard<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    /// Listens until the first message is complete, the body ends or fails, or the
    /// message turns out to be longer than `message_max`.
    fn poll_hear(&mut self, cx: &mut Context<'_>, message_max: usize) -> Poll<()> {
        while !self.is_enough(message_max) {
            match ready!(Pin::new(&mut self.rest).poll_frame(cx)).map(data_of) {
                None => break,
                Some(Ok(data)) => self.take_in(data),
                Some(Err(end)) => {
                    self.end = Some(end);
                    break;
                }
            }
        }
        Poll::Ready(())
    }
}

/// The data of a frame, or what else it is.
fn data_of<E>(frame: Result<Frame<Bytes>, E>) -> Result<Bytes, Result<Frame<Bytes>, E>> {
    match frame {
        Ok(frame) => frame.into_data().map_err(Ok),
        Err(error) => Err(Err(error)),
    }
}

impl<B> Body for Heard<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Unpin,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        if !self.head.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.head)))));
        }
        if !self.tail.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(self.tail.split().freeze()))));
        }
        if let Some(end) = self.end.take() {
            return Poll::Ready(Some(end));
        }
        Pin::new(&mut self.rest).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        let nothing_heard = self.head.is_empty() && self.tail.is_empty() && self.end.is_none();
        nothing_heard && self.rest.is_end_stream()
    }
}
