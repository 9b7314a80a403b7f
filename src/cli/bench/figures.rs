//! From rounds to figures: medians, percentiles, ratios.

use std::{collections::BTreeMap, time::Duration};

use hdrhistogram::Histogram;
use serde::Serialize;

use super::load::Round;

/// What one server did under one load: the median over rounds of each figure.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Figures {
    /// Answered calls, over all rounds.
    pub(super) calls: u64,
    pub(super) decisions_per_second: f64,
    /// CPU of the server for each decision, µs. Absent when it is unknown.
    pub(super) cpu_us: Option<f64>,
    /// CPU of its Redis for each decision, µs. Absent where none was started for it.
    pub(super) redis_cpu_us: Option<f64>,
    /// CPU of the callers for each decision, µs.
    pub(super) client_cpu_us: f64,
    /// From the instant at which a call was due.
    pub(super) latency: Latency,
    /// From the instant at which a call was sent. Differs from the above only
    /// in an open loop, by the time that calls waited for a free caller.
    pub(super) service: Latency,
    /// Of the decisions, the share that let work go on: RETRY, or a grant.
    pub(super) granted_share: f64,
    /// Calls turned away with `RESOURCE_EXHAUSTED`, over all rounds.
    pub(super) rejected: u64,
    /// Their share of all calls.
    pub(super) rejected_share: f64,
    /// Mean length of a request and of a reply.
    pub(super) request_bytes: f64,
    pub(super) reply_bytes: f64,
    /// Decisions for each sync of the server's log. Absent when it does not tell.
    pub(super) decisions_per_sync: Option<f64>,
    /// Memory of the server after the last round. Absent when it is unknown.
    pub(super) resident_bytes: Option<u64>,
    /// Calls that failed over all rounds, by what was wrong.
    pub(super) failed: BTreeMap<String, u64>,
}

/// Percentiles, µs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Latency {
    pub(super) p50_us: f64,
    pub(super) p90_us: f64,
    pub(super) p99_us: f64,
    pub(super) p999_us: f64,
    pub(super) max_us: f64,
}

/// A subject's figure over the baseline's: below 1 is less than the baseline.
/// Absent when one of the two is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Ratios {
    pub(super) throughput: Option<f64>,
    pub(super) cpu: Option<f64>,
    pub(super) p50: Option<f64>,
    pub(super) p99: Option<f64>,
}

impl Figures {
    /// Of one round.
    pub(super) fn of(round: Round) -> Self {
        let tally = &round.tally;
        let decisions = tally.judged.decisions;
        let answered_or_rejected = tally.calls + tally.rejected;
        Self {
            calls: tally.calls,
            decisions_per_second: decisions as f64 / round.elapsed.as_secs_f64(),
            cpu_us: round.server_cpu.and_then(|cpu| per_decision(cpu, decisions)),
            redis_cpu_us: round.redis_cpu.and_then(|cpu| per_decision(cpu, decisions)),
            client_cpu_us: per_decision(round.client_cpu, decisions).unwrap_or_default(),
            latency: Latency::of(&tally.latency),
            service: Latency::of(&tally.service),
            granted_share: share(tally.judged.granted, decisions),
            rejected: tally.rejected,
            rejected_share: share(tally.rejected, answered_or_rejected),
            request_bytes: share(tally.request_bytes, tally.calls),
            reply_bytes: share(tally.reply_bytes, tally.calls),
            decisions_per_sync: round.syncs.and_then(|syncs| ratio(decisions as f64, syncs as f64)),
            resident_bytes: None,
            failed: round.tally.failed,
        }
    }

    /// Of several rounds. `None` when there are none.
    pub(super) fn median(rounds: &[Self]) -> Option<Self> {
        let of = |figure: fn(&Self) -> f64| median(rounds.iter().map(figure));
        let latency = |which: fn(&Self) -> &Latency| Latency::median(rounds.iter().map(which));
        Some(Self {
            calls: rounds.iter().map(|round| round.calls).sum(),
            decisions_per_second: of(|round| round.decisions_per_second)?,
            cpu_us: median(rounds.iter().filter_map(|round| round.cpu_us)),
            redis_cpu_us: median(rounds.iter().filter_map(|round| round.redis_cpu_us)),
            client_cpu_us: of(|round| round.client_cpu_us)?,
            latency: latency(|round| &round.latency)?,
            service: latency(|round| &round.service)?,
            granted_share: of(|round| round.granted_share)?,
            rejected: rounds.iter().map(|round| round.rejected).sum(),
            rejected_share: of(|round| round.rejected_share)?,
            request_bytes: of(|round| round.request_bytes)?,
            reply_bytes: of(|round| round.reply_bytes)?,
            decisions_per_sync: median(rounds.iter().filter_map(|round| round.decisions_per_sync)),
            resident_bytes: None,
            failed: all_failures(rounds),
        })
    }

    pub(super) fn failures(&self) -> u64 {
        self.failed.values().sum()
    }
}

fn all_failures(rounds: &[Figures]) -> BTreeMap<String, u64> {
    let mut failed = BTreeMap::new();
    for (what, count) in rounds.iter().flat_map(|round| &round.failed) {
        *failed.entry(what.clone()).or_default() += count;
    }
    failed
}

impl Latency {
    fn of(nanoseconds: &Histogram<u64>) -> Self {
        let at = |quantile| nanoseconds.value_at_quantile(quantile) as f64 / 1e3;
        Self {
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: nanoseconds.max() as f64 / 1e3,
        }
    }

    fn median<'a>(rounds: impl Iterator<Item = &'a Self> + Clone) -> Option<Self> {
        let of = |percentile: fn(&Self) -> f64| median(rounds.clone().map(percentile));
        Some(Self {
            p50_us: of(|latency| latency.p50_us)?,
            p90_us: of(|latency| latency.p90_us)?,
            p99_us: of(|latency| latency.p99_us)?,
            p999_us: of(|latency| latency.p999_us)?,
            max_us: of(|latency| latency.max_us)?,
        })
    }
}

impl Ratios {
    pub(super) fn of(subject: &Figures, baseline: &Figures) -> Self {
        Self {
            throughput: ratio(subject.decisions_per_second, baseline.decisions_per_second),
            cpu: subject
                .cpu_us
                .zip(baseline.cpu_us)
                .and_then(|(subject, baseline)| ratio(subject, baseline)),
            p50: ratio(subject.latency.p50_us, baseline.latency.p50_us),
            p99: ratio(subject.latency.p99_us, baseline.latency.p99_us),
        }
    }
}

/// The middle value, or the mean of the two in the middle. `None` of nothing.
pub(super) fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(sorted[middle]),
        _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
    }
}

/// How many times `baseline` goes into `subject`. `None` when it is nothing.
pub(super) fn ratio(subject: f64, baseline: f64) -> Option<f64> {
    (0.0 < baseline).then(|| subject / baseline)
}

fn per_decision(cpu: Duration, decisions: u64) -> Option<f64> {
    (0 < decisions).then(|| cpu.as_secs_f64() * 1e6 / decisions as f64)
}

/// A part of a whole; of nothing, zero.
fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::bench::tally::{Judged, Tally};

    #[test]
    fn the_median_is_the_middle() {
        let median = |values: &[f64]| median(values.iter().copied());
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 100.0]), Some(3.0));
    }

    #[test]
    fn a_ratio_to_nothing_is_not_given() {
        assert_eq!(ratio(3.0, 2.0), Some(1.5));
        assert_eq!(ratio(3.0, 0.0), None);
        assert_eq!(ratio(0.0, 2.0), Some(0.0));
    }

    #[test]
    fn percentiles_are_in_microseconds() {
        let mut histogram = Histogram::new(3).unwrap();
        for microseconds in 1..=1000 {
            histogram.record(microseconds * 1000).unwrap();
        }
        let latency = Latency::of(&histogram);
        for (measured, expected) in [
            (latency.p50_us, 500.0),
            (latency.p90_us, 900.0),
            (latency.p99_us, 990.0),
            (latency.max_us, 1000.0),
        ] {
            assert!((measured - expected).abs() <= expected / 500.0, "{measured} for {expected}");
        }
    }

    fn round(decisions: u64, cpu_ms: u64) -> Figures {
        let mut tally = Tally::new();
        tally.calls = decisions;
        tally.judged = Judged { decisions, granted: decisions / 2 };
        tally.failed.insert("lost".to_owned(), 1);
        Figures::of(Round {
            tally,
            elapsed: Duration::from_secs(2),
            server_cpu: Some(Duration::from_millis(cpu_ms)),
            client_cpu: Duration::from_millis(cpu_ms),
            redis_cpu: None,
            syncs: Some(decisions / 20),
        })
    }

    #[test]
    fn rounds_become_medians_and_failures_add_up() {
        let rounds = [round(1000, 10), round(3000, 30), round(2000, 80)];
        let figures = Figures::median(&rounds).unwrap();
        assert_eq!(figures.calls, 6000);
        assert_eq!(figures.decisions_per_second, 1000.0);
        assert_eq!(figures.cpu_us, Some(10.0));
        assert_eq!(figures.granted_share, 0.5);
        assert_eq!(figures.decisions_per_sync, Some(20.0));
        assert_eq!(figures.failures(), 3);
        assert_eq!(Figures::median(&[]), None);
    }

    #[test]
    fn a_round_without_answers_has_no_cost_per_decision() {
        assert_eq!(round(0, 10).cpu_us, None);
    }
}
