//! What stands between a step that waits and its start, as a table, and what
//! change would bring the start forward.

use jiff::{Timestamp, tz::TimeZone};
use serde::Serialize;

use super::{output, text, view};
use crate::proto;

/// What stands between a step and its start.
#[derive(Debug, Serialize)]
pub struct Explanation {
    pub at: Option<Timestamp>,
    pub starts_at: Option<Timestamp>,
    pub constraints: Vec<Stands>,
    pub ends_by: Option<Timestamp>,
    pub ends_by_reason: Option<&'static str>,
}

/// A constraint as it stands.
#[derive(Debug, Serialize)]
pub struct Stands {
    #[serde(flatten)]
    pub constraint: view::Constraint,
    /// How many go before the step in a line.
    pub before: Option<u64>,
    /// When the step could start without it; null where that changes nothing.
    pub without: Option<Timestamp>,
    pub reason: Option<String>,
    pub by: Option<String>,
}

impl From<proto::Explanation> for Explanation {
    fn from(explanation: proto::Explanation) -> Self {
        let reason = text::short_name(explanation.ends_by_reason().as_str_name(), "REASON_");
        Self {
            at: view::instant(explanation.at),
            starts_at: view::instant(explanation.starts_at),
            ends_by: view::instant(explanation.ends_by),
            ends_by_reason: explanation.ends_by.map(|_| reason),
            constraints: explanation.constraints.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<proto::StandingConstraint> for Stands {
    fn from(stands: proto::StandingConstraint) -> Self {
        let said = |text: String| Some(text).filter(|text| !text.is_empty());
        Self {
            constraint: stands.constraint.unwrap_or_default().into(),
            before: stands.before,
            without: view::instant(stands.without),
            reason: said(stands.reason),
            by: said(stands.by),
        }
    }
}

impl Explanation {
    /// The story: when it starts, what stands in between, what would help.
    pub fn in_words(&self, now: Timestamp) -> String {
        let now = self.at.unwrap_or(now);
        let mut told = self.headline(now);
        if !self.constraints.is_empty() {
            told += "\n";
            told += &self.table(now);
        }
        let helps: Vec<String> =
            self.constraints.iter().filter_map(|stands| stands.would_help(now)).collect();
        if !helps.is_empty() {
            told += "\nIt could start earlier:\n";
            told += &helps.concat();
        }
        told
    }

    fn headline(&self, now: Timestamp) -> String {
        let mut binding = self.constraints.iter().filter(|stands| stands.constraint.binding);
        let is_firm = binding.all(|stands| stands.constraint.firm);
        let starts = match self.starts_at {
            Some(at) if at <= now => "As things stand it may start now.".to_owned(),
            Some(at) if is_firm => format!("It starts at {}, as was promised.", clock(at, now)),
            Some(at) => format!("As things stand it starts at {} at the earliest.", clock(at, now)),
            None => "Nobody can say when it starts: see what binds.".to_owned(),
        };
        let ends = self.ends_by.map(|at| {
            let reason = text::words(self.ends_by_reason.unwrap_or_default());
            let late = if self.starts_at.is_some_and(|starts| starts > at) {
                ", which is too early for it"
            } else {
                ""
            };
            format!(" Its time is over at {} ({reason}){late}.", clock(at, now))
        });
        format!("{starts}{}\n", ends.unwrap_or_default())
    }

    fn table(&self, now: Timestamp) -> String {
        let rows = self.constraints.iter().map(|stands| stands.row(now)).collect();
        output::table(["CONSTRAINT", "USED", "NOT BEFORE", "", "BINDS"], rows)
    }
}

impl Stands {
    /// What it is called, such as `rate of warehouse-db`.
    fn name(&self) -> String {
        let kind = match self.constraint.kind {
            "TICKET" => "the instant it was told".to_owned(),
            kind => text::words(kind),
        };
        match &self.constraint.key {
            Some(key) => format!("{kind} of {key}"),
            None => kind,
        }
    }

    fn row(&self, now: Timestamp) -> [String; 5] {
        let earliest = self.constraint.earliest;
        let is_met = earliest.is_some_and(|at| at <= now);
        let not_before = match earliest {
            _ if is_met => "-".to_owned(),
            Some(at) => clock(at, now),
            None => "nobody can say".to_owned(),
        };
        let binds = if self.constraint.binding { "yes" } else { "" };
        [self.name(), self.used(), not_before, self.note(is_met), binds.to_owned()]
    }

    fn used(&self) -> String {
        match (self.constraint.used, self.constraint.limit) {
            (Some(used), Some(limit)) if self.constraint.kind == "BUDGET" => {
                format!("{}/{} retries", thousandths(used), thousandths(limit))
            }
            (Some(used), Some(limit)) => format!("{used}/{limit}"),
            _ => "-".to_owned(),
        }
    }

    fn note(&self, is_met: bool) -> String {
        let kept = match () {
            () if is_met => "met",
            () if self.constraint.firm => "firm",
            () => "estimate",
        };
        let before = self.before.map(|before| format!("{before} go before it"));
        let order = self.reason.as_ref().map(|reason| match &self.by {
            Some(by) => format!("ordered by {by}: {reason}"),
            None => format!("ordered: {reason}"),
        });
        let notes = [Some(kept.to_owned()), before, order];
        notes.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }

    fn would_help(&self, now: Timestamp) -> Option<String> {
        let without = self.without?;
        let when = if without <= now { "now".to_owned() } else { clock(without, now) };
        Some(format!("  {when} without the {}\n", self.name().trim_start_matches("the ")))
    }
}

/// A time of day where the reader is, beside how far it is away.
fn clock(at: Timestamp, now: Timestamp) -> String {
    let local = |at: Timestamp| at.to_zoned(TimeZone::system());
    let format = if local(at).date() == local(now).date() { "%H:%M:%S" } else { "%F %H:%M:%S" };
    let away = |span| text::duration(std::time::Duration::try_from(span).unwrap_or_default());
    let clock = local(at).strftime(format).to_string();
    match at > now {
        true => format!("{clock} (in {})", away(at.duration_since(now))),
        false => format!("{clock} ({} ago)", away(now.duration_since(at))),
    }
}

/// A count of thousandths as a number.
#[expect(clippy::cast_precision_loss, reason = "far below 2⁵³")]
fn thousandths(count: u64) -> f64 {
    count as f64 / 1000.0
}
