//! `reprise store copy`: moving house.

use std::{path::Path, process::ExitCode, time::Duration};

use serde::Serialize;

use super::{
    super::{
        Global,
        error::CliError,
        exit::Exit,
        output::{self, Format},
        serve::sentence,
    },
    place::{self, Place},
};
use crate::{
    clock::Clock,
    domain::{id::Id, shift::Shift, time::Timestamp},
    store::{
        StoreError,
        copy::{Copied, CopyError, Released, Source, Tally, Target, Told, copy},
        embedded::{Embedded, copy::EmbeddedTarget},
        redis::{
            Redis,
            copy::{RedisSource, RedisTarget},
        },
    },
};

/// Steps between two lines of progress.
const LINE_EVERY: u64 = 10_000;

/// From where to where.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "A store is embedded:DIR or an address of Redis such as redis://127.0.0.1. An embedded source must \
have no server; Redis is paused while it is copied and then goes on, unless `reprise store pause` had paused it. \
The target must be new, and gets no server before the copy is whole. A copy that was interrupted is simply run again."
)]
pub struct CopyArgs {
    /// What is copied
    #[arg(long, value_name = "STORE")]
    from: String,
    /// Where to
    #[arg(long, value_name = "STORE")]
    to: String,
}

/// Copies, and shows what was copied.
pub async fn run(global: &Global, args: CopyArgs) -> Result<ExitCode, CliError> {
    let (from, to) = (Place::parse("--from", &args.from)?, Place::parse("--to", &args.to)?);
    if is_same(&from, &to) {
        return Err(CliError::usage("--from and --to are the same store"));
    }
    let copied = match &from {
        Place::Embedded(dir) => into(global, embedded_source(dir)?, &from, &to).await,
        Place::Redis(address) => {
            let options = place::redis((**address).clone(), global.call_timeout);
            let store = Redis::existing(options).await;
            let store = store.map_err(|error| place::not_reached("open the source", &error))?;
            into(global, RedisSource::new(store), &from, &to).await
        }
    };
    show(global, &from, &to, &copied?)?;
    Ok(Exit::Ok.into())
}

fn is_same(from: &Place, to: &Place) -> bool {
    match (from, to) {
        (Place::Embedded(from), Place::Embedded(to)) => {
            let real = |dir: &Path| dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
            real(from) == real(to)
        }
        (from, to) => from.to_string() == to.to_string(),
    }
}

fn embedded_source(dir: &Path) -> Result<Embedded, CliError> {
    if !Embedded::is_in(dir) {
        let what = format!("could not open the source: {} holds no store", dir.display());
        return Err(CliError::new(Exit::NotFound, what));
    }
    Embedded::open(&place::embedded(dir.to_owned()), Clock::system(Timestamp::EPOCH))
        .map_err(|error| place::not_opened("open the source", &error))
}

async fn into(
    global: &Global,
    source: impl Source,
    from: &Place,
    to: &Place,
) -> Result<Copied, CliError> {
    match to {
        Place::Embedded(dir) => {
            let options = place::embedded(dir.clone());
            let target = EmbeddedTarget::open(options, Clock::system(Timestamp::EPOCH));
            let target = target.map_err(|error| place::not_opened("open the target", &error))?;
            made(source, from, target).await
        }
        Place::Redis(address) => {
            let options = place::redis((**address).clone(), global.call_timeout);
            let target = RedisTarget::connect(options).await;
            let target = target.map_err(|error| place::not_reached("open the target", &error))?;
            made(source, from, target).await
        }
    }
}

async fn made(
    mut source: impl Source,
    from: &Place,
    mut target: impl Target,
) -> Result<Copied, CliError> {
    let mut progress = Progress::new(output::is_watched());
    let called = from.to_string();
    let copied = copy(&mut source, &called, &mut target, |told| {
        output::message_part(&progress.after(&told));
    });
    let copied = copied.await;
    output::message_part(&progress.end());
    copied.map_err(|error| wrong(&error))
}

fn wrong(error: &CopyError) -> CliError {
    let exit = match error {
        CopyError::SourceInUse(_) | CopyError::SourceWentOn(_) | CopyError::TargetInUse(_) => {
            Exit::Conflict
        }
        CopyError::Source(error) | CopyError::Target(error) => place::exit_of(error),
        CopyError::Differs(_) => Exit::Failed,
    };
    let told = CliError::new(exit, format!("could not copy: {}", sentence(error)));
    match error {
        CopyError::Target(StoreError::Full) => {
            told.next("make room at the target and run the copy again")
        }
        CopyError::Source(_)
        | CopyError::Target(_)
        | CopyError::SourceWentOn(_)
        | CopyError::Differs(_) => told.next("run the copy again; it begins anew"),
        CopyError::SourceInUse(_) => told.next("wait for that copy to end, and try again"),
        // What is in it is told with what to do about it.
        CopyError::TargetInUse(_) => told,
    }
}

/// What is written about how far it is: on a terminal a line for each namespace,
/// written over at every page; elsewhere a line each 10 000 steps and at its end.
struct Progress {
    is_watched: bool,
    latest: Option<Stretch>,
}

/// So many steps of a namespace are copied, or read back.
struct Stretch {
    namespace: Id,
    is_read: bool,
    steps: u64,
}

impl Stretch {
    fn of(told: &Told<'_>) -> Self {
        let (namespace, is_read, steps) = match told {
            Told::Copied(name, steps) => (*name, false, *steps),
            Told::ReadBack(name, steps) => (*name, true, *steps),
        };
        Self { namespace: namespace.clone(), is_read, steps }
    }

    fn is_continued_by(&self, next: &Self) -> bool {
        self.namespace == next.namespace && self.is_read == next.is_read
    }

    fn line(&self) -> String {
        let Self { namespace, is_read, steps } = self;
        let done = if *is_read { "compared" } else { "copied" };
        format!("reprise: namespace {namespace}: {steps} steps {done}")
    }
}

/// To the beginning of the line, and nothing of it left.
const OVER: &str = "\r\x1b[K";

impl Progress {
    const fn new(is_watched: bool) -> Self {
        Self { is_watched, latest: None }
    }

    fn after(&mut self, told: &Told<'_>) -> String {
        let next = Stretch::of(told);
        let mut text = String::new();
        let before = match &self.latest {
            Some(latest) if latest.is_continued_by(&next) => latest.steps,
            _ => {
                text = self.end();
                0
            }
        };
        if self.is_watched {
            text += &format!("{OVER}{}", next.line());
        } else if before / LINE_EVERY < next.steps / LINE_EVERY {
            text += &format!("{}\n", next.line());
        }
        self.latest = Some(next);
        text
    }

    /// The last line about the namespace that it is at.
    fn end(&mut self) -> String {
        let Some(latest) = self.latest.take() else { return String::new() };
        let over = if self.is_watched { OVER } else { "" };
        format!("{over}{}\n", latest.line())
    }
}

/// A copy, as it is shown.
#[derive(Serialize)]
struct Summary {
    from: String,
    to: String,
    shift_seconds: f64,
    source: &'static str,
    steps: u64,
    namespaces: Vec<Part>,
}

#[derive(Serialize)]
struct Part {
    namespace: String,
    steps: u64,
    live_steps: u64,
    failure_texts: u64,
    policies: u64,
    inline_policies: u64,
    digest: String,
}

impl Summary {
    fn of(from: &Place, to: &Place, copied: &Copied) -> Self {
        let part = |(name, tally): &(Id, Tally)| Part {
            namespace: name.to_string(),
            steps: tally.steps,
            live_steps: tally.live_steps,
            failure_texts: tally.texts,
            policies: tally.policies,
            inline_policies: tally.inline,
            digest: format!("{:032x}", tally.digest),
        };
        Self {
            from: from.to_string(),
            to: to.to_string(),
            shift_seconds: seconds(copied.shift),
            source: match copied.source {
                Released::GoesOn => "GOES_ON",
                Released::StaysPaused => "STAYS_PAUSED",
                Released::AtRest => "AT_REST",
            },
            steps: copied.namespaces.iter().map(|(_, tally)| tally.steps).sum(),
            namespaces: copied.namespaces.iter().map(part).collect(),
        }
    }
}

fn seconds(shift: Shift) -> f64 {
    let span = Duration::from_micros(shift.as_micros().unsigned_abs()).as_secs_f64();
    if shift.as_micros() < 0 { -span } else { span }
}

fn show(global: &Global, from: &Place, to: &Place, copied: &Copied) -> Result<(), CliError> {
    let summary = Summary::of(from, to, copied);
    let namespaces = summary.namespaces.len();
    output::message(&format!(
        "reprise: {} steps in {namespaces} namespaces are copied and compared; instants moved by {:.3}s",
        summary.steps, summary.shift_seconds
    ));
    output::message(match copied.source {
        Released::GoesOn => {
            "reprise: the source goes on; what changes there from now on is not in the copy \
             (`reprise store pause` before it keeps the source closed)"
        }
        Released::StaysPaused => "reprise: the source stays paused",
        Released::AtRest => "reprise: the source is as it was; start servers on the target alone",
    });
    if global.output == Format::Json {
        return output::print_json(&summary);
    }
    let row = |part: &Part| {
        [
            part.namespace.clone(),
            part.steps.to_string(),
            part.live_steps.to_string(),
            part.policies.to_string(),
            part.inline_policies.to_string(),
            part.digest.clone(),
        ]
    };
    let header = ["NAMESPACE", "STEPS", "LIVE", "POLICIES", "INLINE", "DIGEST"];
    output::print(&output::table(header, summary.namespaces.iter().map(row).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_one_line_a_namespace_and_more_only_where_nobody_watches() {
        let name: Id = "n".parse().unwrap();
        let told = [256, 9_999, 10_240, 10_300].map(|steps| Told::Copied(&name, steps));
        let written = |is_watched| {
            let mut progress = Progress::new(is_watched);
            let mut text: String = told.iter().map(|told| progress.after(told)).collect();
            text += &progress.after(&Told::ReadBack(&name, 256));
            text + &progress.end()
        };
        let lines = ["10240 steps copied", "10300 steps copied", "256 steps compared"];
        let wanted = lines.map(|line| format!("reprise: namespace n: {line}\n"));
        assert_eq!(written(false), wanted.concat());
        let seen = written(true);
        let lines: Vec<_> = seen.lines().filter_map(|line| line.rsplit(OVER).next()).collect();
        assert_eq!(lines, wanted[1..].iter().map(|line| line.trim_end()).collect::<Vec<_>>());
    }
}
