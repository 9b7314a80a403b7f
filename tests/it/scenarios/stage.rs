//! Where transcripts are played: a service on a store, time moved by hand, and
//! workers who remember what a worker remembers.

use std::{collections::HashMap, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use reprise::{
    clock::Clock,
    domain::{failure::Code, policy::spec::PolicySpec, time::Timestamp},
    grpc::{
        admin::{About, Admin},
        convert::policy,
        retry::Retry,
    },
    proto::{
        self, admin_service_server::AdminService as _, retry_service_server::RetryService as _,
    },
    service::Service,
    store::{
        Store as _,
        embedded::{Embedded, EmbeddedOptions, log::Fsync},
    },
    telemetry::Telemetry,
};
use tempfile::TempDir;
use tonic::{Code as StatusCode, Request, Response, Status};

use super::{
    span,
    told::{self, START, Told},
    transcript::{Line, Words},
};

/// The store looks for due steps several times a second; a pause longer than
/// three seconds would be an outage to it.
const LOOK_EVERY: Duration = Duration::from_secs(3);

/// Where a transcript is played.
pub struct Stage {
    clock: Clock,
    /// Where the durable store is; None in memory.
    folder: Option<TempDir>,
    instance: Option<Instance>,
    now: Duration,
    calls: usize,
    step: StepName,
    /// The fence that a worker holds for a step.
    held: HashMap<(String, StepName), u64>,
    /// The fences of a step's grants, by attempt.
    fences: HashMap<(StepName, u32), u64>,
    /// The highest fence of a step.
    fence_max: HashMap<StepName, u64>,
    sent: Vec<(Duration, Call)>,
}

/// A running service.
struct Instance {
    service: Arc<Service<Embedded>>,
    retry: Retry<Embedded>,
    admin: Admin<Embedded>,
}

/// Namespace, run and step.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct StepName {
    namespace: String,
    run: String,
    step: String,
}

/// What a worker sends.
#[derive(Clone)]
#[expect(clippy::large_enum_variant, reason = "there is one at a time")]
enum Call {
    Begin(proto::BeginAttemptRequest),
    Heartbeat(proto::HeartbeatRequest),
    Report(Box<proto::ReportAttemptRequest>),
}

impl Instance {
    fn start(clock: &Clock, folder: Option<&TempDir>) -> Self {
        let store = match folder {
            None => Embedded::memory(clock.clone()),
            Some(folder) => {
                let options = EmbeddedOptions {
                    dir: folder.path().join("data"),
                    fsync: Fsync::Always,
                    size_max: None,
                };
                Embedded::open(&options, clock.clone()).expect("the store opens")
            }
        };
        let service = Arc::new(Service::new(store, Arc::new(Telemetry::new()), clock.clone()));
        let about = About {
            started_at: clock.now(),
            policy_file: String::new(),
            policy_file_error: ArcSwap::from_pointee(String::new()),
        };
        let retry = Retry::new(Arc::clone(&service), clock.clone());
        let admin = Admin::new(Arc::clone(&service), Arc::new(about));
        Self { service, retry, admin }
    }
}

impl Stage {
    pub fn in_memory() -> Self {
        Self::new(None)
    }

    pub fn durable() -> Self {
        Self::new(Some(tempfile::tempdir().expect("a folder for the store")))
    }

    fn new(folder: Option<TempDir>) -> Self {
        let clock = Clock::manual(Timestamp::EPOCH.plus(START));
        Self {
            instance: Some(Instance::start(&clock, folder.as_ref())),
            clock,
            folder,
            now: Duration::ZERO,
            calls: 0,
            step: StepName::default(),
            held: HashMap::new(),
            fences: HashMap::new(),
            fence_max: HashMap::new(),
            sent: Vec::new(),
        }
    }

    fn instance(&self) -> &Instance {
        self.instance.as_ref().expect("it is gone only while it restarts")
    }

    /// Does what a line says. Err is a line that cannot be understood.
    pub async fn play(&mut self, line: &Line) -> Result<Told, String> {
        let mut words = line.deed.clone();
        let verb = words.word("what is done")?;
        let at = line.at.unwrap_or(self.now);
        if verb == "stalled" {
            self.skip_to(at)?;
        } else {
            self.live_until(at).await?;
        }
        let told = match verb.as_str() {
            "namespace" => self.namespace(&mut words).await?,
            "policy" => self.policy(&mut words, &line.block).await?,
            "delete-policy" => self.delete_policy(&mut words).await?,
            "begin" => self.begin(&mut words, &line.block).await?,
            "heartbeat" => self.heartbeat(&mut words).await?,
            "succeed" | "fail" => self.report(&verb, &mut words, &line.block).await?,
            "repeat" => self.repeat(&mut words).await?,
            "show" => self.show(&mut words).await?,
            "sweep" | "stalled" => self.sweep().await,
            "restart" => self.restart()?,
            _ => return Err(format!("there is no such thing to do: {verb}")),
        };
        let takes_policy = verb == "policy"
            || line.deed.named.get("policy").is_some_and(|policy| policy == "inline");
        if !line.block.is_empty() && !takes_policy {
            return Err("indented lines are for policies; nothing here takes one".to_owned());
        }
        words.finish()?;
        let must_be_said = !matches!(
            verb.as_str(),
            "namespace" | "policy" | "delete-policy" | "restart" | "stalled"
        );
        match &line.expected {
            None if must_be_said => {
                Err(format!("an answer is missing: -> {}", told.head.join(" ")))
            }
            None if told.is_error() => Err(format!("it failed: {}", told.head.join(" "))),
            Some(expected) if expected.plain.is_empty() => {
                Err("an answer begins with what was answered".to_owned())
            }
            _ => Ok(told),
        }
    }

    /// Lets time pass while the service runs, but carries out nothing.
    async fn live_until(&mut self, at: Duration) -> Result<(), String> {
        while self.now < at {
            let span = LOOK_EVERY.min(at - self.now);
            self.clock.advance(span);
            self.now += span;
            self.instance().service.store().peek_due(0).await.expect("the store is there");
        }
        self.skip_to(at)
    }

    /// Lets time pass while the service stands still.
    fn skip_to(&mut self, at: Duration) -> Result<(), String> {
        let span = at.checked_sub(self.now).ok_or("time does not run backwards")?;
        self.clock.advance(span);
        self.now = at;
        Ok(())
    }

    async fn namespace(&mut self, words: &mut Words) -> Result<Told, String> {
        let name = words.word("the namespace")?;
        let settings = proto::NamespaceSettings {
            default_policy: words.text("default_policy"),
            default_target: words.text("default_target"),
            lease: words.span("lease")?.map(length),
            max_retries_ceiling: words.number("max_retries_ceiling")?,
            max_elapsed_ceiling: words.span("max_elapsed_ceiling")?.map(length),
            retention: words.span("retention")?.map(length),
            abandon_after: words.span("abandon_after")?.map(length),
            max_live_steps: words.number("max_live_steps")?,
        };
        let namespace =
            proto::Namespace { name: name.clone(), settings: Some(settings), ..Default::default() };
        let admin = &self.instance().admin;
        let known =
            admin.get_namespace(Request::new(proto::GetNamespaceRequest { namespace: name })).await;
        if known.is_err_and(|status| status.code() == StatusCode::NotFound) {
            let request = proto::CreateNamespaceRequest { namespace: Some(namespace) };
            return Ok(told(admin.create_namespace(Request::new(request)).await, |_| {
                Told::of(&["created"])
            }));
        }
        let request =
            proto::UpdateNamespaceRequest { namespace: Some(namespace), update_mask: None };
        Ok(told(admin.update_namespace(Request::new(request)).await, |_| Told::of(&["updated"])))
    }

    async fn policy(&mut self, words: &mut Words, block: &str) -> Result<Told, String> {
        let policy = proto::NamedPolicy {
            name: words.word("the policy")?,
            policy: Some(read_policy(block)?),
            ..Default::default()
        };
        let request = proto::UpdatePolicyRequest {
            namespace: words.text("in"),
            policy: Some(policy),
            validate_only: false,
            allow_missing: true,
        };
        let written = self.instance().admin.update_policy(Request::new(request)).await;
        Ok(told(written, |written| {
            Told::of(&["written"])
                .fact("revision", written.policy.map_or(0, |policy| policy.revision))
        }))
    }

    async fn delete_policy(&mut self, words: &mut Words) -> Result<Told, String> {
        let request = proto::DeletePolicyRequest {
            namespace: words.text("in"),
            name: words.word("the policy")?,
            etag: String::new(),
        };
        Ok(told(self.instance().admin.delete_policy(Request::new(request)).await, |_| {
            Told::of(&["deleted"])
        }))
    }

    /// Takes the step that is named, else the one named last.
    fn step(&mut self, words: &mut Words) -> Result<StepName, String> {
        let named = words
            .plain
            .iter()
            .position(|word| word.contains('/'))
            .and_then(|at| words.plain.remove(at));
        let namespace = words.named.remove("in");
        if let Some(name) = named {
            let (run, step) = name.split_once('/').expect("it contains one");
            self.step = StepName {
                namespace: namespace.unwrap_or_default(),
                run: run.to_owned(),
                step: step.to_owned(),
            };
        } else if let Some(namespace) = namespace {
            self.step.namespace = namespace;
        }
        if self.step.run.is_empty() {
            Err("which step? write run/step".to_owned())
        } else {
            Ok(self.step.clone())
        }
    }

    async fn begin(&mut self, words: &mut Words, block: &str) -> Result<Told, String> {
        use proto::begin_attempt_request::Policy;
        let StepName { namespace, run, step } = self.step(words)?;
        self.calls += 1;
        let id = words.named.remove("id").unwrap_or_else(|| format!("call-{}", self.calls));
        let policy = given_policy(words, block)?.map(|given| match given {
            Given::Named(name) => Policy::PolicyName(name),
            Given::Inline(policy) => Policy::InlinePolicy(policy),
        });
        let request = proto::BeginAttemptRequest {
            namespace,
            run,
            step,
            request_id: request_id(&id)?.into(),
            policy,
            lease: words.span("lease")?.map(length),
            host: words.text("host"),
            worker: worker(words),
            kind: words.text("kind"),
            targets: Vec::new(),
            queue: words.text("queue"),
            deadline: words.span("deadline")?.map(instant),
            time_left: words.span("time-left")?.map(length),
            awaits: false,
            payload: Default::default(),
            run_attempt: 0,
            labels: Default::default(),
        };
        self.send(Call::Begin(request)).await
    }

    async fn heartbeat(&mut self, words: &mut Words) -> Result<Told, String> {
        let name = self.step(words)?;
        let fence = self.fence(words, &name)?.ok_or("this worker holds no lease")?;
        let lease = words.span("lease")?.map(length);
        let StepName { namespace, run, step } = name;
        self.send(Call::Heartbeat(proto::HeartbeatRequest {
            namespace,
            run,
            step,
            fence,
            lease,
            progress: None,
        }))
        .await
    }

    async fn report(&mut self, verb: &str, words: &mut Words, block: &str) -> Result<Told, String> {
        use proto::report_attempt_request::{Outcome, Policy};
        let name = self.step(words)?;
        let attempt = words.number("attempt")?.unwrap_or(0);
        let id = words.named.remove("id");
        let is_named = attempt > 0 || id.is_some();
        let fence = if is_named { None } else { self.fence(words, &name)? };
        // A worker that names its attempt needs no memory.
        words.named.remove("as");
        if !is_named && fence.is_none() {
            return Err(
                "which attempt? this worker began none; write attempt=NUMBER or id=NAME".to_owned()
            );
        }
        let policy = given_policy(words, block)?.map(|given| match given {
            Given::Named(name) => Policy::PolicyName(name),
            Given::Inline(policy) => Policy::InlinePolicy(policy),
        });
        let outcome = if verb == "succeed" {
            Outcome::Success(proto::Success {})
        } else {
            Outcome::Failure(failure(words)?)
        };
        let StepName { namespace, run, step } = name;
        let request = proto::ReportAttemptRequest {
            namespace,
            run,
            step,
            fence: fence.unwrap_or(0),
            attempt,
            request_id: id.map_or_else(|| Ok(Vec::new()), |id| request_id(&id))?.into(),
            outcome: Some(outcome),
            policy,
            kind: words.text("kind"),
            targets: Vec::new(),
            deadline: words.span("deadline")?.map(instant),
            time_left: words.span("time-left")?.map(length),
            run_attempt: 0,
        };
        self.send(Call::Report(Box::new(request))).await
    }

    /// The fence of the attempt that is named, else the one that the worker
    /// remembers.
    fn fence(&self, words: &mut Words, name: &StepName) -> Result<Option<u64>, String> {
        let worker = worker(words);
        if let Some(fence) = words.number("fence")? {
            return Ok(Some(fence));
        }
        match words.number("fence-of")? {
            Some(attempt) => {
                let fence = self.fences.get(&(name.clone(), attempt)).copied();
                fence.map(Some).ok_or_else(|| format!("attempt {attempt} was not granted"))
            }
            None => Ok(self.held.get(&(worker, name.clone())).copied()),
        }
    }

    /// Sends again what was sent last, or at the time that is named.
    async fn repeat(&mut self, words: &mut Words) -> Result<Told, String> {
        let call = match words.plain.pop_front() {
            None => self.sent.last().map(|(_, call)| call.clone()),
            Some(text) => {
                let at = span::parse(&text).ok_or_else(|| format!("{text} is not a time"))?;
                let mut then = self
                    .sent
                    .iter()
                    .filter(|(sent_at, _)| *sent_at == at)
                    .map(|(_, call)| call.clone());
                let call = then.next();
                if then.next().is_some() {
                    return Err(format!("more than one call was sent at {text}"));
                }
                call
            }
        };
        self.carry_out(call.ok_or("nothing was sent then")?).await
    }

    async fn send(&mut self, call: Call) -> Result<Told, String> {
        self.sent.push((self.now, call.clone()));
        self.carry_out(call).await
    }

    async fn carry_out(&mut self, call: Call) -> Result<Told, String> {
        let retry = &self.instance().retry;
        match call {
            Call::Heartbeat(request) => {
                Ok(told(retry.heartbeat(Request::new(request)).await, told::heartbeat))
            }
            Call::Report(request) => {
                Ok(told(retry.report_attempt(Request::new(*request)).await, told::report))
            }
            Call::Begin(request) => {
                let name = StepName {
                    namespace: request.namespace.clone(),
                    run: request.run.clone(),
                    step: request.step.clone(),
                };
                let worker = request.worker.clone();
                let answer = retry.begin_attempt(Request::new(request)).await;
                if let Ok(answer) = &answer {
                    self.remember(worker, name, answer.get_ref())?;
                }
                Ok(told(answer, told::begin))
            }
        }
    }

    /// Remembers a grant. That fences only grow is asked of every transcript.
    fn remember(
        &mut self,
        worker: String,
        name: StepName,
        answer: &proto::BeginAttemptResponse,
    ) -> Result<(), String> {
        let Some(proto::begin_attempt_response::Answer::Grant(grant)) = &answer.answer else {
            return Ok(());
        };
        if answer.replayed {
            return Ok(());
        }
        let highest = self.fence_max.insert(name.clone(), grant.fence).unwrap_or(0);
        if grant.fence <= highest {
            return Err(format!("the fence went back, from {highest} to {}", grant.fence));
        }
        self.fences.insert((name.clone(), grant.attempt), grant.fence);
        self.held.insert((worker, name), grant.fence);
        Ok(())
    }

    async fn show(&mut self, words: &mut Words) -> Result<Told, String> {
        let StepName { namespace, run, step } = self.step(words)?;
        let shown = self
            .instance()
            .retry
            .get_step(Request::new(proto::GetStepRequest { namespace, run, step }))
            .await;
        Ok(told(shown, |shown| told::step(&shown.step.expect("a step that is shown"))))
    }

    async fn sweep(&self) -> Told {
        match self.instance().service.sweep(1000).await.unwrap() {
            0 => Told::of(&["nothing"]),
            1 => Told::of(&["1", "step"]),
            swept => Told::of(&[&swept.to_string(), "steps"]),
        }
    }

    fn restart(&mut self) -> Result<Told, String> {
        let folder = self.folder.as_ref().ok_or("a store in memory does not outlive a restart")?;
        drop(self.instance.take());
        self.instance = Some(Instance::start(&self.clock, Some(folder)));
        Ok(Told::of(&["restarted"]))
    }
}

fn told<T>(answer: Result<Response<T>, Status>, tell: impl Fn(T) -> Told) -> Told {
    match answer {
        Ok(answer) => tell(answer.into_inner()),
        Err(status) => told::error(&status),
    }
}

fn worker(words: &mut Words) -> String {
    words.named.remove("as").unwrap_or_else(|| "w1".to_owned())
}

#[expect(clippy::large_enum_variant, reason = "there is one at a time")]
enum Given {
    Named(String),
    Inline(proto::Policy),
}

fn given_policy(words: &mut Words, block: &str) -> Result<Option<Given>, String> {
    match words.named.remove("policy") {
        None => Ok(None),
        Some(name) if name == "inline" => read_policy(block).map(Given::Inline).map(Some),
        Some(name) => Ok(Some(Given::Named(name))),
    }
}

fn read_policy(block: &str) -> Result<proto::Policy, String> {
    if block.trim().is_empty() {
        return Ok(proto::Policy::default());
    }
    let spec: PolicySpec = serde_saphyr::from_str(block).map_err(|error| error.to_string())?;
    Ok(policy::to_proto(&spec))
}

fn failure(words: &mut Words) -> Result<proto::Failure, String> {
    let class = words.word("the class of the failure")?;
    let number = proto::FailureClass::from_str_name(&format!("FAILURE_CLASS_{class}"));
    let wish = proto::RetryWish {
        max_retries: words.number("wish-max-retries")?,
        delay: words.span("wish-delay")?.map(length),
    };
    Ok(proto::Failure {
        class: number.ok_or_else(|| format!("{class} is not a class of failures"))?.into(),
        error_type: words.text("type"),
        code: words.named.remove("code").map(|code| read_code(&code)).transpose()?,
        exit_code: words.number("exit")?,
        signal: words.number("signal")?,
        message: words.text("message"),
        host: words.text("host"),
        duration: words.span("ran")?.map(length),
        pushback: words.named.remove("pushback").map(|text| read_pushback(&text)).transpose()?,
        wish: (wish != proto::RetryWish::default()).then_some(wish),
        retryable: words.flag("not-retryable").then_some(false),
        action: words.text("action"),
        ..Default::default()
    })
}

fn read_code(text: &str) -> Result<proto::failure::Code, String> {
    if let Ok(status) = text.parse() {
        return Ok(proto::failure::Code::HttpStatus(status));
    }
    match Code::from_grpc_name(text) {
        Some(Code::Grpc(number)) => Ok(proto::failure::Code::GrpcCode(number.into())),
        _ => Err(format!("{text} is no HTTP status and no gRPC code")),
    }
}

/// `30s` after the failure, `@5m` of the store's time, or `never`.
fn read_pushback(text: &str) -> Result<proto::Pushback, String> {
    use proto::pushback::Until;
    let until = match text.strip_prefix('@') {
        _ if text == "never" => Some(Until::Never(true)),
        Some(at) => span::parse(at).map(instant).map(Until::Time),
        None => span::parse(text).map(length).map(Until::After),
    };
    match until {
        Some(until) => Ok(proto::Pushback { until: Some(until) }),
        None => Err(format!("{text} is no pushback; write 30s, @5m or never")),
    }
}

fn length(span: Duration) -> prost_types::Duration {
    prost_types::Duration::try_from(span).expect("transcripts are short")
}

fn instant(since_start: Duration) -> prost_types::Timestamp {
    (std::time::SystemTime::UNIX_EPOCH + START + since_start).into()
}

/// 16 bytes that begin with the name.
fn request_id(name: &str) -> Result<Vec<u8>, String> {
    let mut id = name.as_bytes().to_vec();
    if id.len() > 16 {
        return Err(format!("{name} is too long for an id of 16 bytes"));
    }
    id.resize(16, 0);
    Ok(id)
}
