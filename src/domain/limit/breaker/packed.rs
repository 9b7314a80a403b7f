//! A breaker as bytes, as `breaker.lua` has it: little-endian, counts as doubles,
//! lists behind their length in a byte, and the outcomes to the end.

use super::{Breaker, Ejected, Episode, Phase, Probe, Seen};
use crate::domain::time::Timestamp;

const CLOSED: u8 = 0;
const OPEN: u8 = 1;
const RAMP: u8 = 2;
/// Bytes of an outcome.
const SEEN: usize = 6 + 2 + 2 + 1;

impl Breaker {
    /// Writes it. One that has seen nothing is nothing.
    #[must_use]
    pub fn pack(&self) -> Vec<u8> {
        if *self == Self::default() {
            return Vec::new();
        }
        let mut out = Vec::with_capacity(80 + self.outcomes.len() * SEEN);
        let (phase, words) = match self.phase {
            Phase::Closed => (CLOSED, [0; 4]),
            Phase::Open { wait, next } => (OPEN, [wait, next.as_micros(), 0, 0]),
            Phase::Ramp { since, length, full, started } => {
                (RAMP, [since.as_micros(), length, full, started])
            }
        };
        out.push(phase);
        out.extend(self.mark.to_le_bytes());
        out.push(u8::try_from(self.relapses).unwrap_or(u8::MAX));
        for word in std::iter::once(self.pace).chain(words) {
            out.extend(double(word));
        }
        list(&mut out, self.probes.iter(), |out, probe| {
            out.extend(probe.step.to_le_bytes());
            out.extend(double(probe.until.as_micros()));
        });
        list(&mut out, self.tried.iter(), |out, step| out.extend(step.to_le_bytes()));
        list(&mut out, self.episodes.iter(), |out, episode| {
            out.extend(double(episode.from.as_micros()));
            out.extend(double(episode.until.map_or(0, Timestamp::as_micros)));
        });
        list(&mut out, self.ejected.iter(), |out, ejected| {
            out.extend(ejected.host.to_le_bytes());
            out.extend(double(ejected.until.as_micros()));
        });
        for seen in &self.outcomes {
            out.extend(&seen.at_ms.to_le_bytes()[..6]);
            out.extend(seen.host.to_le_bytes());
            out.extend(seen.step.to_le_bytes());
            out.push(u8::from(seen.failed));
        }
        out
    }

    /// Reads it; None when it is not in the form of this version.
    #[must_use]
    pub fn unpack(bytes: &[u8]) -> Option<Self> {
        if bytes.is_empty() {
            return Some(Self::default());
        }
        let mut input = Input(bytes);
        let phase = input.byte()?;
        let mut breaker = Self {
            mark: input.word()?,
            relapses: u32::from(input.byte()?),
            pace: input.double()?,
            ..Self::default()
        };
        let words = [input.double()?, input.double()?, input.double()?, input.double()?];
        breaker.phase = match (phase, words) {
            (CLOSED, _) => Phase::Closed,
            (OPEN, [wait, next, ..]) => Phase::Open { wait, next: Timestamp::from_micros(next) },
            (RAMP, [since, length, full, started]) => {
                Phase::Ramp { since: Timestamp::from_micros(since), length, full, started }
            }
            _ => return None,
        };
        for _ in 0..input.byte()? {
            breaker.probes.push(Probe { step: input.word()?, until: input.instant()? });
        }
        for _ in 0..input.byte()? {
            breaker.tried.push_back(input.word()?);
        }
        for _ in 0..input.byte()? {
            let (from, until) = (input.instant()?, input.double()?);
            let until = (until != 0).then(|| Timestamp::from_micros(until));
            breaker.episodes.push(Episode { from, until });
        }
        for _ in 0..input.byte()? {
            breaker.ejected.push(Ejected { host: input.half()?, until: input.instant()? });
        }
        while !input.0.is_empty() {
            let mut at_ms = [0; 8];
            at_ms[..6].copy_from_slice(input.take(6)?);
            breaker.outcomes.push_back(Seen {
                at_ms: u64::from_le_bytes(at_ms),
                host: input.half()?,
                step: input.half()?,
                failed: input.byte()? != 0,
            });
        }
        Some(breaker)
    }
}

/// A number below 2⁵³.
#[expect(clippy::cast_precision_loss, reason = "instants, spans and counts are below 2⁵³")]
const fn double(number: u64) -> [u8; 8] {
    (number as f64).to_le_bytes()
}

fn list<T>(
    out: &mut Vec<u8>,
    items: impl ExactSizeIterator<Item = T>,
    mut write: impl FnMut(&mut Vec<u8>, T),
) {
    // Each list is bounded far below it.
    out.push(u8::try_from(items.len()).unwrap_or(u8::MAX));
    items.take(usize::from(u8::MAX)).for_each(|item| write(out, item));
}

struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn take(&mut self, count: usize) -> Option<&[u8]> {
        let (head, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(head)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn half(&mut self) -> Option<u16> {
        Some(u16::from_le_bytes(self.take(2)?.try_into().ok()?))
    }

    fn word(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "whole, not negative and below 2⁵³"
    )]
    fn double(&mut self) -> Option<u64> {
        Some(f64::from_le_bytes(self.take(8)?.try_into().ok()?) as u64)
    }

    fn instant(&mut self) -> Option<Timestamp> {
        self.double().map(Timestamp::from_micros)
    }
}
