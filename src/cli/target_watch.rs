//! `reprise target watch`: what is used of a target's limits, as it changes.

use jiff::Timestamp;
use serde::Serialize;

use super::{
    Global,
    client::Service,
    error::CliError,
    exit::Exit,
    output::{self, Format},
    target::{Forced, WatchArgs},
    view,
};
use crate::proto::{self, BreakerState};

/// Lines between two headers.
const HEADER_EVERY: u64 = 20;
/// Widths of the columns.
const WIDTHS: [usize; 7] = [10, 12, 12, 8, 12, 30, 8];
const HEADER: [&str; 7] = ["TIME", "STARTS", "RUNNING", "IN LINE", "BUDGET", "BREAKER", "PARKED"];

/// What is used, as it is shown.
#[derive(Debug, Serialize)]
struct Usage {
    at: Option<Timestamp>,
    /// Starts in the current stretch of the rate's calendar.
    rate: Option<Used>,
    concurrency: Option<Used>,
    in_line: u64,
    /// In retries.
    budget: Option<Spent>,
    cooldown_until: Option<Timestamp>,
    breaker: Option<Breaker>,
    parked: u64,
    ejected_hosts: u64,
}

#[derive(Debug, Serialize)]
struct Used {
    used: u64,
    limit: u64,
}

#[derive(Debug, Serialize)]
struct Spent {
    used: f64,
    limit: f64,
}

#[derive(Debug, Serialize)]
struct Breaker {
    state: &'static str,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    started: u64,
    forced: Option<Forced>,
}

/// Looks again and again, until it is interrupted or has looked often enough.
pub async fn watch(global: &Global, service: &Service, args: WatchArgs) -> Result<(), CliError> {
    let WatchArgs { name, run, every, count } = args;
    let doing = format!("watch target {name}");
    let namespace = global.namespace.clone();
    let request = proto::GetTargetUsageRequest { namespace, name, run };
    for looks in 0..count.unwrap_or(u64::MAX) {
        if looks > 0 {
            tokio::time::sleep(every).await;
        }
        let response = service
            .admin(&doing, async |mut client| client.get_target_usage(request.clone()).await)
            .await?;
        let usage = Usage::read(response.usage.unwrap_or_default());
        let text = match global.output {
            Format::Json => usage.in_json()?,
            Format::Table if looks % HEADER_EVERY == 0 => {
                line(HEADER.map(str::to_owned)) + &usage.in_a_line()
            }
            Format::Table => usage.in_a_line(),
        };
        if !output::printed(&text)? {
            break;
        }
    }
    Ok(())
}

impl Usage {
    fn read(usage: proto::TargetUsage) -> Self {
        let of = |used: proto::LimitUse| Used { used: used.used, limit: used.limit };
        Self {
            at: view::instant(usage.at),
            rate: usage.rate.map(of),
            concurrency: usage.concurrency.map(of),
            in_line: usage.in_line,
            budget: usage.budget.map(|spent| Spent {
                used: thousandths(spent.used),
                limit: thousandths(spent.limit),
            }),
            cooldown_until: view::instant(usage.cooldown_until),
            breaker: usage.breaker.map(Breaker::read),
            parked: usage.parked,
            ejected_hosts: usage.ejected_hosts,
        }
    }

    /// One value a line, so that a program can read them as they come.
    fn in_json(&self) -> Result<String, CliError> {
        serde_json::to_string(self)
            .map(|json| json + "\n")
            .map_err(|e| CliError::new(Exit::Failed, format!("could not write JSON: {e}")))
    }

    fn in_a_line(&self) -> String {
        let used = |used: &Option<Used>| {
            used.as_ref().map_or("-".to_owned(), |used| format!("{}/{}", used.used, used.limit))
        };
        let budget = |spent: &Spent| format!("{:.1}/{:.1}", spent.used, spent.limit);
        line([
            self.at.map(clock).unwrap_or_default(),
            used(&self.rate),
            used(&self.concurrency),
            self.in_line.to_string(),
            self.budget.as_ref().map_or("-".to_owned(), budget),
            self.health(),
            self.parked.to_string(),
        ])
    }

    /// How the target is, in words.
    fn health(&self) -> String {
        let forced = self.breaker.as_ref().and_then(|breaker| breaker.forced.as_ref());
        let breaker = match &self.breaker {
            Some(_) if forced.is_some() => forced_in_words(forced),
            Some(Breaker { state: "open", since: Some(since), .. }) => {
                format!("open since {}", clock(*since))
            }
            Some(Breaker { state: "ramp", until: Some(until), .. }) => {
                format!("ramp until {}", clock(*until))
            }
            Some(breaker) => breaker.state.to_owned(),
            None => "-".to_owned(),
        };
        let cooled = self.cooldown_until.map(|until| format!("cooled until {}", clock(until)));
        let hosts = (self.ejected_hosts > 0).then(|| format!("{} hosts out", self.ejected_hosts));
        [Some(breaker), cooled, hosts].into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}

impl Breaker {
    fn read(standing: proto::BreakerStanding) -> Self {
        let state = match standing.state() {
            BreakerState::Unspecified => "unknown",
            BreakerState::Closed => "closed",
            BreakerState::Open => "open",
            BreakerState::Ramp => "ramp",
        };
        let (since, until) = (view::instant(standing.since), view::instant(standing.until));
        let started = standing.started;
        Self { state, since, until, started, forced: standing.forced.map(Forced::read) }
    }
}

/// An operator's order, such as `forced open until 14:00:00Z`.
fn forced_in_words(forced: Option<&Forced>) -> String {
    let Some(forced) = forced else { return String::new() };
    let until = forced.until().map(|until| format!(" until {}", clock(until)));
    format!("forced {}{}", forced.state, until.unwrap_or_default())
}

fn clock(at: Timestamp) -> String {
    at.strftime("%H:%M:%SZ").to_string()
}

#[expect(clippy::cast_precision_loss, reason = "far below 2⁵³")]
fn thousandths(count: u64) -> f64 {
    count as f64 / 1000.0
}

/// One line of the table, which grows downwards and so has columns of fixed width.
fn line(cells: [String; 7]) -> String {
    let padded = cells.iter().zip(WIDTHS).map(|(cell, width)| format!("{cell:<width$}"));
    format!("{}\n", padded.collect::<Vec<_>>().join(" ").trim_end())
}
