//! What is charged to targets, and their states, as bytes.

use std::{num::NonZeroU32, time::Duration};

use super::super::pack::{Malformed, Reader, Writer};
use crate::domain::{
    limit::{
        Charge, Effect, Rate, Starts,
        book::TargetState,
        breaker::{Breaker, Ended, Freed, TargetOutcome},
        calendar::Calendar,
        line::Line,
        window::Window,
    },
    time::{Timestamp, micros},
};

/// In the order of their stored numbers.
const OUTCOMES: [TargetOutcome; 3] =
    [TargetOutcome::Served, TargetOutcome::Failed, TargetOutcome::Nothing];

/// Writes charges.
#[must_use]
pub fn pack(charges: &[Charge]) -> Vec<u8> {
    let mut out = Writer::with_capacity(16 + charges.len() * 32);
    out.number(charges.len() as u64);
    for charge in charges {
        out.text(&charge.state);
        effect(&mut out, charge.effect);
    }
    out.into_bytes()
}

/// Reads charges.
///
/// # Errors
/// When they are not in the form of this version.
pub fn unpack(bytes: &[u8]) -> Result<Vec<Charge>, Malformed> {
    let mut input = Reader::new(bytes);
    let count = input.count()?;
    (0..count)
        .map(|_| Ok(Charge { state: input.text()?.into(), effect: read_effect(&mut input)? }))
        .collect()
}

fn effect(out: &mut Writer, effect: Effect) {
    let (tag, instant) = match effect {
        Effect::Take { at, .. } => (0, Some(at)),
        Effect::GiveBack { at, .. } => (1, Some(at)),
        Effect::Permit { until } => (2, Some(until)),
        Effect::Release => (3, None),
        Effect::Queue { since } => (4, Some(since)),
        Effect::Count { .. } => (5, None),
        Effect::Cool { until, full: None } => (6, Some(until)),
        Effect::Cool { until, full: Some(_) } => (11, Some(until)),
        Effect::Park { since } => (7, Some(since)),
        Effect::Ended(ended) => (if ended.only_watches { 14 } else { 8 }, None),
        Effect::Probe { until, .. } => (9, Some(until)),
        Effect::Pace => (10, None),
        Effect::Free { freed, .. } => (if freed.only_watches { 13 } else { 12 }, Some(freed.at)),
    };
    out.number(tag);
    if let Some(instant) = instant {
        out.number(instant.as_micros());
    }
    match effect {
        Effect::Take { rate, .. } | Effect::GiveBack { rate, .. } => {
            out.number(u64::from(rate.limit.get()));
            out.number(micros(rate.period));
            out.number(u64::from(rate.burst.get()));
            out.flag(rate.on == Starts::Retries);
        }
        Effect::Ended(Ended { step, host, outcome, draw, full, only_watches: _ }) => {
            let outcome = OUTCOMES.iter().position(|known| *known == outcome).unwrap_or_default();
            for word in [u64::from(step), u64::from(host), outcome as u64, u64::from(draw), full] {
                out.number(word);
            }
        }
        Effect::Cool { full: Some(full), .. } => out.number(full),
        Effect::Free { freed, full } => {
            out.number(micros(freed.ramp));
            out.number(full);
        }
        Effect::Probe { step, draw, .. } => {
            out.number(u64::from(step));
            out.number(u64::from(draw));
        }
        Effect::Count { width, cost } => {
            out.number(width);
            out.number(cost.map_or(0, |cost| u64::from(cost) + 1));
        }
        _ => {}
    }
}

fn read_effect(input: &mut Reader<'_>) -> Result<Effect, Malformed> {
    Ok(match input.number()? {
        0 => {
            let at = instant(input)?;
            Effect::Take { rate: rate(input)?, at }
        }
        1 => {
            let at = instant(input)?;
            Effect::GiveBack { rate: rate(input)?, at }
        }
        2 => Effect::Permit { until: instant(input)? },
        3 => Effect::Release,
        4 => Effect::Queue { since: instant(input)? },
        5 => {
            let width = input.number()?;
            let cost = input.number()?.checked_sub(1).map(u32::try_from);
            Effect::Count { width, cost: cost.transpose().map_err(|_| Malformed)? }
        }
        6 => Effect::Cool { until: instant(input)?, full: None },
        11 => Effect::Cool { until: instant(input)?, full: Some(input.number()?) },
        7 => Effect::Park { since: instant(input)? },
        tag @ (8 | 14) => Effect::Ended(Ended {
            step: input.number_u32()?,
            host: half(input)?,
            outcome: *usize::try_from(input.number()?)
                .ok()
                .and_then(|at| OUTCOMES.get(at))
                .ok_or(Malformed)?,
            draw: half(input)?,
            full: input.number()?,
            only_watches: tag == 14,
        }),
        9 => {
            let until = instant(input)?;
            Effect::Probe { step: input.number_u32()?, until, draw: half(input)? }
        }
        10 => Effect::Pace,
        tag @ (12 | 13) => {
            let (at, ramp) = (instant(input)?, Duration::from_micros(input.number()?));
            let freed = Freed { at, ramp, only_watches: tag == 13 };
            Effect::Free { freed, full: input.number()? }
        }
        _ => return Err(Malformed),
    })
}

fn half(input: &mut Reader<'_>) -> Result<u16, Malformed> {
    u16::try_from(input.number()?).map_err(|_| Malformed)
}

fn instant(input: &mut Reader<'_>) -> Result<Timestamp, Malformed> {
    input.number().map(Timestamp::from_micros)
}

fn rate(input: &mut Reader<'_>) -> Result<Rate, Malformed> {
    Ok(Rate {
        limit: positive(input)?,
        period: Duration::from_micros(input.number()?),
        burst: positive(input)?,
        on: if input.flag()? { Starts::Retries } else { Starts::All },
    })
}

fn positive(input: &mut Reader<'_>) -> Result<NonZeroU32, Malformed> {
    NonZeroU32::new(input.number_u32()?).ok_or(Malformed)
}

/// Writes the state of a target.
#[must_use]
pub fn pack_state(state: &TargetState) -> Vec<u8> {
    let calendar = state.calendar.pack();
    let mut out = Writer::with_capacity(64 + calendar.len());
    out.number(state.cooldown.as_micros());
    out.number(state.permits.len() as u64);
    for (member, until) in &state.permits {
        out.text(member);
        out.number(until.as_micros());
    }
    pack_line(&mut out, &state.line);
    out.number(state.window.width);
    out.number(state.window.stretches.len() as u64);
    for (number, (firsts, costs)) in &state.window.stretches {
        out.number(*number);
        out.number(*firsts);
        out.number(*costs);
    }
    out.bytes(&calendar);
    out.into_bytes()
}

/// Writes what is known of a target's health; empty where that is nothing.
#[must_use]
pub fn pack_health(state: &TargetState) -> Vec<u8> {
    let breaker = state.breaker.pack();
    if breaker.is_empty() && state.parked.is_empty() {
        return Vec::new();
    }
    let mut out = Writer::with_capacity(64 + breaker.len());
    pack_line(&mut out, &state.parked);
    out.bytes(&breaker);
    out.into_bytes()
}

/// Reads what is known of a target's health: who is parked, and the breaker.
///
/// # Errors
/// When it is not in the form of this version.
pub fn unpack_health(bytes: &[u8]) -> Result<(Line, Breaker), Malformed> {
    let mut input = Reader::new(bytes);
    let parked = read_line(&mut input)?;
    Ok((parked, Breaker::unpack(input.rest()).ok_or(Malformed)?))
}

fn pack_line(out: &mut Writer, line: &Line) {
    out.number(line.len() as u64);
    for (member, since) in line.places() {
        out.text(member);
        out.number(since.as_micros());
    }
}

fn read_line(input: &mut Reader<'_>) -> Result<Line, Malformed> {
    let mut line = Line::default();
    for _ in 0..input.count()? {
        let member = input.text()?;
        line.join(member, instant(input)?);
    }
    Ok(line)
}

/// Reads the state of a target.
///
/// # Errors
/// When it is not in the form of this version.
pub fn unpack_state(bytes: &[u8]) -> Result<TargetState, Malformed> {
    let mut input = Reader::new(bytes);
    let mut state = TargetState { cooldown: instant(&mut input)?, ..TargetState::default() };
    for _ in 0..input.count()? {
        let member = input.text()?.into();
        state.permits.insert(member, instant(&mut input)?);
    }
    state.line = read_line(&mut input)?;
    let mut window = Window { width: input.number()?, ..Window::default() };
    for _ in 0..input.count()? {
        let number = input.number()?;
        window.stretches.insert(number, (input.number()?, input.number()?));
    }
    state.window = window;
    state.calendar = Calendar::unpack(input.rest()).ok_or(Malformed)?;
    Ok(state)
}
