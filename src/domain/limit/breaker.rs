//! A breaker: a target that is dead is not called, but for a probe now and then,
//! and when it is back its load grows on a ramp.
//!
//! It opens on evidence that does not rest on one host or a few steps: of the
//! latest outcomes nine in ten failed, or the last twenty in a row, and the same is
//! so without the host that failed most, of which ten in a row are enough. So they
//! are of all where the target was dead just before: a relapse is seen sooner. While it is open one attempt after the
//! other starts as a probe, each by a step that has not tried yet, so that a
//! poisonous step cannot keep it open. The first probe that succeeds closes it.
//!
//! From its first failure until the end of its ramp is an *episode*. Failures that
//! belong to one burn none of a step's retries ([`Episodes`]).
//!
//! The same evidence shows a host that fails in a row while the others succeed:
//! it is kept from starting attempts for a while, and the breaker stays closed.
//!
//! The numbers below were found with `reprise simulate storm`. The script
//! `breaker.lua` mirrors this file; a property holds the two equal.

mod packed;
#[cfg(test)]
mod tests;

use std::{collections::VecDeque, time::Duration};

use crate::domain::time::{Timestamp, micros};

/// Outcomes that are looked at, at most.
const OUTCOMES: usize = 64;
/// Outcomes that are older are not looked at, ms.
const SEEN_MS: u64 = 60_000;
/// Outcomes that it takes, and those that are left without the worst host.
const EVIDENCE: (usize, usize) = (20, 10);
/// Failures in a row that are as good as nine of ten; and those that are left
/// without the worst host. (Ten in a row happen by chance, every ten seconds or so,
/// where half of a hundred calls a second fail.)
const IN_A_ROW: (usize, usize) = (20, 10);
/// Hosts and steps that it takes.
const DISTINCT: (usize, usize) = (2, 3);
/// The first probe comes so long after the opening, µs.
const PROBE_FIRST: u64 = 500_000;
/// An open breaker has opened so long before its first probe, at most, µs.
const OPENED_BEFORE: u64 = PROBE_FIRST * 5 / 4;
/// Probes come at most so far apart, µs; each time by half as much again.
const PROBE_LAST: u64 = 2_500_000;
/// Probes at the same time, at most.
const PROBES: usize = 3;
/// How long a probe is waited for before it counts as lost, µs.
const PROBE_PATIENCE: u64 = 30_000_000;
/// Steps that have tried in this episode, of which it is remembered.
const TRIED: usize = 32;
/// Length of a ramp, µs: half of the episode, within these.
const RAMP: (u64, u64) = (1_000_000, 10_000_000);
/// A relapse doubles the next ramp, so many times at most.
const DOUBLINGS: u32 = 3;
/// A breaker that opens so soon after a ramp, or within the ramp's length, has
/// relapsed, µs.
const RELAPSE: u64 = 30_000_000;
/// Episodes that are remembered.
const EPISODES: usize = 4;
/// Failures in a row that eject a host, and outcomes of the others that it takes.
const EJECT: (usize, usize) = (5, 10);
/// How long a host is ejected, µs.
const EJECTED: u64 = 30_000_000;
/// Hosts that are ejected at the same time, at most.
const EJECTED_MAX: usize = 8;
/// Starts a second at the end of a ramp, in thousandths, where no rate says: as
/// many as outcomes came in before, within these.
const PACE: (u64, u64) = (10_000, 1_000_000);

/// What is known of a target's health.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Breaker {
    phase: Phase,
    /// Grows whenever the episodes change.
    mark: u32,
    /// Times in a row that it opened again soon.
    relapses: u32,
    /// Starts a second before it opened, in thousandths.
    pace: u64,
    probes: Vec<Probe>,
    /// Steps that have tried in this episode, the latest last.
    tried: VecDeque<u32>,
    episodes: Vec<Episode>,
    ejected: Vec<Ejected>,
    /// The latest last.
    outcomes: VecDeque<Seen>,
}

/// Whether attempts start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    /// They do.
    #[default]
    Closed,
    /// Only probes do.
    Open {
        /// Before the next probe but one, µs.
        wait: u64,
        /// When the next one may start.
        next: Timestamp,
    },
    /// More and more do.
    Ramp {
        /// Since when. Before that none does: the target asked for it.
        since: Timestamp,
        /// For how long, µs.
        length: u64,
        /// Starts a second at its end, in thousandths.
        full: u64,
        /// Starts that it has admitted.
        started: u64,
    },
}

/// An attempt that is to show whether the target is back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Probe {
    step: u32,
    /// Whoever is not heard of by then is lost.
    until: Timestamp,
}

/// A host that starts nothing for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ejected {
    host: u16,
    until: Timestamp,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    /// When, ms.
    at_ms: u64,
    host: u16,
    step: u16,
    failed: bool,
}

/// A time in which a target was dead or coming back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Episode {
    /// Its first failure.
    pub from: Timestamp,
    /// The end of its ramp; None while the breaker is open.
    pub until: Option<Timestamp>,
}

impl Episode {
    /// Whether it was on at an instant.
    #[must_use]
    pub fn covers(&self, at: Timestamp) -> bool {
        self.from <= at && self.until.is_none_or(|until| at <= until)
    }
}

/// The latest episodes of a target, as a decision knows them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Episodes {
    /// Tells them from others: a commit is only as good as the episodes that it
    /// was planned on.
    pub mark: u32,
    /// The latest last.
    pub list: Vec<Episode>,
}

impl Episodes {
    /// Whether one of them was on at an instant.
    #[must_use]
    pub fn cover(&self, at: Timestamp) -> bool {
        self.list.iter().any(|episode| episode.covers(at))
    }
}

/// What an attempt's end says of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Whose attempt it was: see [`mark_of`].
    pub step: u32,
    /// Where it ran: see [`mark_of`]; 0 is unknown.
    pub host: u16,
    /// How it ended.
    pub outcome: TargetOutcome,
    /// Where in its span the wait for the next probe falls, of 2¹⁶.
    pub draw: u16,
    /// Starts a second that the target's rate allows, in thousandths; 0 without
    /// a rate.
    pub full: u64,
    /// Whether the breaker only watches: then no start is a probe, and who has served
    /// once one might have started is taken for it.
    pub only_watches: bool,
}

/// What an attempt's end says of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetOutcome {
    /// It served.
    Served,
    /// It failed.
    Failed,
    /// Nothing: the work itself failed, or the worker did.
    Nothing,
}

/// The end of an order that held a breaker open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Freed {
    /// When it was.
    pub at: Timestamp,
    /// How long the target's load grows from then on.
    pub ramp: Duration,
    /// Whether the breaker only watches otherwise: then it grows also where the breaker has
    /// seen the target dead, which keeps nobody away.
    pub only_watches: bool,
}

/// The length of the ramp after a time in which nothing started.
#[must_use]
pub fn ramp_after(outage: Duration) -> Duration {
    span((micros(outage) / 2).clamp(RAMP.0, RAMP.1))
}

/// What a breaker says of a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admits {
    /// Nothing against it.
    Any,
    /// It may start as a probe.
    Probe,
    /// It waits. The next probe may start at this instant.
    Parked(Timestamp),
    /// The host is ejected until this instant.
    OtherHost(Timestamp),
    /// From this instant on: the target is coming back.
    Ramp(Timestamp),
}

/// How a breaker stands, for those who look on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Attempts start.
    Closed,
    /// Only probes do.
    Open {
        /// The first failure of the outage.
        since: Timestamp,
        /// When the next probe may start.
        next_probe: Timestamp,
    },
    /// The target's load grows.
    Ramp {
        /// Since when; before that nothing starts.
        since: Timestamp,
        /// Until when.
        until: Timestamp,
        /// Starts that it has admitted.
        started: u64,
        /// When it admits the next one.
        next: Timestamp,
    },
}

/// A name as a small number, to tell it from others in evidence: two names that
/// fall together weaken the evidence, and no more.
#[must_use]
pub fn mark_of(name: &str) -> u32 {
    // FNV-1a, with an end that mixes: the lower half alone is used as well.
    let hash = name
        .bytes()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    hash ^ (hash >> 16)
}

impl Breaker {
    /// What it says of a start at `now` by a step, on a host, and whether that
    /// comes from it at all: `is_start` is false for a promise.
    #[must_use]
    pub fn admits(&self, step: u32, host: u16, is_start: bool, now: Timestamp) -> Admits {
        let ejected = self.ejected.iter().find(|known| known.host == host && now < known.until);
        if let Some(Ejected { until, .. }) = ejected.filter(|_| is_start && host != 0) {
            return Admits::OtherHost(*until);
        }
        match self.phase {
            Phase::Closed => Admits::Any,
            Phase::Open { next, .. } => {
                let running = self.probes.iter().filter(|probe| now < probe.until).count();
                let is_turn = next <= now || planted!("probe-out-of-turn");
                let may = is_turn && running < PROBES && !self.tried.contains(&step);
                if may { Admits::Probe } else { Admits::Parked(next) }
            }
            Phase::Ramp { since, length, .. } if since.plus(span(length)) <= now => Admits::Any,
            Phase::Ramp { since, .. } if now < since => Admits::Parked(since),
            Phase::Ramp { since, length, full, started } => {
                Admits::Ramp(since.plus(span(ramped(length, full, started))))
            }
        }
    }

    /// Whether only probes start.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open { .. })
    }

    /// The episodes, for a decision.
    #[must_use]
    pub fn episodes(&self) -> Episodes {
        Episodes { mark: self.mark, list: self.episodes.clone() }
    }

    /// How it stands.
    #[must_use]
    pub fn standing(&self, now: Timestamp) -> Standing {
        match self.phase {
            Phase::Open { next, .. } => {
                let since = self.episodes.last().map_or(next, |episode| episode.from);
                Standing::Open { since, next_probe: next }
            }
            Phase::Ramp { since, length, full, started } if now < since.plus(span(length)) => {
                let next = since.plus(span(ramped(length, full, started)));
                Standing::Ramp { since, until: since.plus(span(length)), started, next }
            }
            Phase::Closed | Phase::Ramp { .. } => Standing::Closed,
        }
    }

    /// How many hosts are ejected.
    #[must_use]
    pub fn ejected_at(&self, now: Timestamp) -> usize {
        self.ejected.iter().filter(|known| now < known.until).count()
    }

    /// Tells them from others.
    #[must_use]
    pub const fn mark(&self) -> u32 {
        self.mark
    }

    /// Whether nothing of it is of use at `past`.
    #[must_use]
    pub fn is_idle(&self, past: Timestamp) -> bool {
        let is_over = |episode: &Episode| episode.until.is_some_and(|until| until <= past);
        let latest = self.outcomes.back().map_or(0, |seen| seen.at_ms);
        !self.is_open() && self.episodes.iter().all(is_over) && latest * 1000 <= past.as_micros()
    }

    /// A probe starts.
    pub fn probe(&mut self, step: u32, lease_until: Timestamp, draw: u16, now: Timestamp) {
        let Phase::Open { wait, .. } = self.phase else { return };
        let until = lease_until.min(now.plus(span(PROBE_PATIENCE)));
        self.probes.retain(|probe| now < probe.until && probe.step != step);
        self.probes.push(Probe { step, until });
        self.tried.push_back(step);
        if self.tried.len() > TRIED {
            self.tried.pop_front();
        }
        self.phase = Phase::Open {
            wait: (wait * 3 / 2).min(PROBE_LAST),
            next: now.plus(span(drawn(wait, draw))),
        };
    }

    /// The target has asked not to be called until an instant: nothing starts, and
    /// then its load grows on a ramp. `full` is as in [`Ended`].
    pub fn cool(&mut self, until: Timestamp, full: u64, now: Timestamp) {
        match self.phase {
            Phase::Open { .. } => return,
            Phase::Ramp { since, .. } if until <= since => return,
            _ => {}
        }
        let length = micros(ramp_after(until - now));
        let full = if full == 0 { self.pace.max(PACE.0) } else { full };
        self.phase = Phase::Ramp { since: until, length, full, started: 0 };
        self.mark += 1;
    }

    /// An order that held it open has ended: a ramp begins. However often it is told,
    /// that happens once, and not where the breaker keeps the target alone by its own
    /// evidence. `full` is as in [`Ended`].
    pub fn free(&mut self, freed: Freed, full: u64) {
        if self.knows(freed) {
            return;
        }
        let full = if full == 0 { self.pace.max(PACE.0) } else { full };
        if self.is_open() {
            self.end_episode(freed.at.plus(freed.ramp));
        }
        self.phase = Phase::Ramp { since: freed.at, length: micros(freed.ramp), full, started: 0 };
        self.mark += 1;
    }

    /// Whether the end of an order changes nothing any more.
    #[must_use]
    pub fn knows(&self, freed: Freed) -> bool {
        match self.phase {
            Phase::Closed => false,
            // One that opened since then has the later word.
            Phase::Open { next, .. } => {
                !(freed.only_watches && next <= freed.at.plus(span(OPENED_BEFORE)))
            }
            Phase::Ramp { since, .. } => freed.at <= since,
        }
    }

    /// An operator says that the target need not be left alone any longer: a ramp that
    /// was to begin later begins now.
    pub fn lift(&mut self, now: Timestamp) {
        if let Phase::Ramp { since, .. } = &mut self.phase {
            *since = (*since).min(now);
        }
    }

    /// A start on the ramp is granted or promised.
    pub const fn pace(&mut self) {
        if let Phase::Ramp { started, .. } = &mut self.phase {
            *started += 1;
        }
    }

    /// An attempt has ended.
    pub fn ended(&mut self, ended: &Ended, now: Timestamp) {
        if let Phase::Open { next, .. } = self.phase {
            let stands_for_one = ended.only_watches && next <= now;
            let was_probe =
                stands_for_one || self.probes.iter().any(|probe| probe.step == ended.step);
            self.probes.retain(|probe| probe.step != ended.step);
            if was_probe && ended.outcome == TargetOutcome::Served {
                self.close(ended.full, now);
            }
            return;
        }
        if ended.outcome == TargetOutcome::Nothing {
            return;
        }
        let failed = ended.outcome == TargetOutcome::Failed;
        self.see(ended, failed, now);
        if failed {
            let at_ms = now.as_micros() / 1000;
            let recent = |seen: &&Seen| at_ms <= seen.at_ms + SEEN_MS;
            let seen: Vec<Seen> = self.outcomes.iter().filter(recent).copied().collect();
            let enough = if self.is_weak(now) { IN_A_ROW.1 } else { IN_A_ROW.0 };
            if is_dead(&seen, enough) {
                self.open(&seen, ended.draw, now);
            } else if is_alone(&seen, ended.host) {
                self.eject(ended.host, now);
            }
        }
    }

    /// Whether it was dead just before: it has closed, and a failure would be a
    /// relapse.
    fn is_weak(&self, now: Timestamp) -> bool {
        match self.phase {
            Phase::Ramp { since, length, .. } => {
                now <= since.plus(span(length)).plus(span(RELAPSE.max(length)))
            }
            Phase::Closed | Phase::Open { .. } => false,
        }
    }

    fn see(&mut self, ended: &Ended, failed: bool, now: Timestamp) {
        #[expect(clippy::cast_possible_truncation, reason = "the lower half tells steps apart")]
        let step = ended.step as u16;
        let at_ms = now.as_micros() / 1000;
        self.outcomes.push_back(Seen { at_ms, host: ended.host, step, failed });
        if self.outcomes.len() > OUTCOMES {
            self.outcomes.pop_front();
        }
    }

    fn open(&mut self, seen: &[Seen], draw: u16, now: Timestamp) {
        let first = seen.iter().find(|seen| seen.failed).map_or(0, |seen| seen.at_ms * 1000);
        let oldest = seen.first().map_or(0, |seen| seen.at_ms * 1000);
        let lasted = now.as_micros().saturating_sub(oldest).max(1);
        self.pace = (seen.len() as u64 * 1_000_000_000 / lasted).clamp(PACE.0, PACE.1);
        match self.phase {
            Phase::Ramp { since, length, .. } => {
                let end = since.plus(span(length));
                self.relapses =
                    if self.is_weak(now) { (self.relapses + 1).min(DOUBLINGS) } else { 0 };
                match self.episodes.last_mut().filter(|_| now <= end) {
                    // The same episode: the target had not come back.
                    Some(episode) => episode.until = None,
                    None => self.begin_episode(Timestamp::from_micros(first)),
                }
            }
            _ => {
                self.relapses = 0;
                self.begin_episode(Timestamp::from_micros(first));
            }
        }
        self.phase = Phase::Open {
            wait: PROBE_FIRST * 3 / 2,
            next: now.plus(span(drawn(PROBE_FIRST, draw))),
        };
        self.mark += 1;
        self.probes.clear();
        self.tried.clear();
        self.outcomes.clear();
    }

    fn begin_episode(&mut self, from: Timestamp) {
        self.episodes.push(Episode { from, until: None });
        if self.episodes.len() > EPISODES {
            self.episodes.remove(0);
        }
    }

    fn close(&mut self, full: u64, now: Timestamp) {
        let from = self.episodes.last().map_or(now, |episode| episode.from);
        let mut length = micros(ramp_after(now - from)) << self.relapses;
        if planted!("ramp-skipped") {
            length = 1;
        }
        let full = if full == 0 { self.pace } else { full };
        self.phase = Phase::Ramp { since: now, length, full, started: 0 };
        self.end_episode(now.plus(span(length)));
        self.mark += 1;
    }

    fn end_episode(&mut self, until: Timestamp) {
        if let Some(episode) = self.episodes.last_mut() {
            episode.until = Some(until);
        }
        self.probes.clear();
        self.tried.clear();
    }

    fn eject(&mut self, host: u16, now: Timestamp) {
        self.ejected.retain(|known| now < known.until && known.host != host);
        if self.ejected.len() < EJECTED_MAX && !planted!("host-not-ejected") {
            self.ejected.push(Ejected { host, until: now.plus(span(EJECTED)) });
        }
    }
}

/// Somewhere within a quarter of a wait.
const fn drawn(wait: u64, draw: u16) -> u64 {
    wait * (49_152 + draw as u64 / 2) / 65_536
}

const fn span(micros: u64) -> Duration {
    Duration::from_micros(micros)
}

/// When, after its begin, a ramp admits the start that follows `started` others.
///
/// At x of a ramp of length L it has admitted full · (0.1 x + 0.45 x²/L) starts,
/// the sum of a rate that grows evenly from a tenth to all of it.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "below 2⁵³, not negative, and computed alike by the script"
)]
fn ramped(length: u64, full: u64, started: u64) -> u64 {
    let (long, full) = (length as f64, full as f64);
    let due = 0.01 + 1.8e9 * started as f64 / (full * long);
    let at = (long / 0.9 * (due.sqrt() - 0.1)).ceil().max(0.0);
    (at as u64).min(length)
}

/// Whether nothing but a dead target explains the outcomes.
fn is_dead(seen: &[Seen], enough_in_a_row: usize) -> bool {
    if seen.len() < EVIDENCE.0 || !holds(seen.iter(), enough_in_a_row) {
        return false;
    }
    let mut hosts: Vec<(u16, usize)> = Vec::new();
    for seen in seen {
        match hosts.iter_mut().find(|(host, _)| *host == seen.host) {
            Some((_, failures)) => *failures += usize::from(seen.failed),
            None => hosts.push((seen.host, usize::from(seen.failed))),
        }
    }
    if hosts.len() < DISTINCT.0 {
        return false;
    }
    let mut worst = hosts[0];
    for host in hosts {
        if host.1 > worst.1 {
            worst = host;
        }
    }
    let mut steps: Vec<u16> = Vec::new();
    for seen in seen.iter().filter(|seen| seen.failed && seen.host != worst.0) {
        if !steps.contains(&seen.step) {
            steps.push(seen.step);
        }
    }
    let rest = || seen.iter().filter(|seen| seen.host != worst.0);
    rest().count() >= EVIDENCE.1 && steps.len() >= DISTINCT.1 && holds(rest(), IN_A_ROW.1)
}

/// Nine of ten failed, or the last so many in a row.
fn holds<'a>(seen: impl Iterator<Item = &'a Seen>, enough_in_a_row: usize) -> bool {
    let (mut count, mut failures, mut in_a_row) = (0, 0, 0);
    for seen in seen {
        count += 1;
        failures += usize::from(seen.failed);
        in_a_row = if seen.failed { in_a_row + 1 } else { 0 };
    }
    failures * 10 >= count * 9 || in_a_row >= enough_in_a_row
}

/// Whether a host fails in a row while others do not.
fn is_alone(seen: &[Seen], host: u16) -> bool {
    let (mut in_a_row, mut others, mut served) = (0, 0, 0);
    for seen in seen {
        if seen.host == host {
            in_a_row = if seen.failed { in_a_row + 1 } else { 0 };
        } else {
            others += 1;
            served += usize::from(!seen.failed);
        }
    }
    host != 0 && in_a_row >= EJECT.0 && others >= EJECT.1 && served * 2 >= others
}
