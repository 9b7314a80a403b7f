//! The stored form of what orders have left with a step.

use std::{collections::VecDeque, time::Duration};

use crate::{
    domain::{
        event::Deadline,
        order::{
            EXCLUDED_MAX, Extension, Footing, Given, ORDERS_MAX, Orders, Stage, StepPause, What,
        },
        policy::spec::HoldAnswer,
        record::Identity,
        time::{Timestamp, micros},
    },
    store::pack::{Malformed, Reader, Writer},
};

/// Writes orders; instants are distances from `base`.
pub(super) fn put(out: &mut Writer, orders: &Orders, base: Timestamp) {
    out.number(orders.given.len() as u64);
    for given in &orders.given {
        put_given(out, given, base);
    }
    out.flag(orders.pause.is_some());
    if let Some(StepPause { since, counted_to, until, by, reason }) = &orders.pause {
        put_instant(out, *since, base);
        put_instant(out, *counted_to, base);
        out.flag(until.is_some());
        if let Some(until) = until {
            put_instant(out, *until, base);
        }
        out.text(by);
        out.text(reason);
    }
    out.flag(orders.is_cancel_requested);
    out.flag(orders.is_retry_ordered);
    out.number(u64::from(orders.extra_retries));
    out.number(orders.excluded_hosts.len() as u64);
    for host in &orders.excluded_hosts {
        out.text(host);
    }
}

fn put_given(out: &mut Writer, given: &Given, base: Timestamp) {
    out.bytes(&given.identity.id.to_le_bytes());
    out.bytes(&given.identity.payload.to_le_bytes());
    put_instant(out, given.at, base);
    out.text(&given.by);
    out.text(&given.reason);
    put_what(out, given.what, base);
    for Footing { stage, retries } in [given.before, given.after] {
        out.number(place(&Stage::ALL, &stage));
        out.number(u64::from(retries));
    }
}

fn put_what(out: &mut Writer, what: What, base: Timestamp) {
    let tag = match what {
        What::Retry => 0,
        What::Skip => 1,
        What::Succeed => 2,
        What::Fail => 3,
        What::Cancel => 4,
        What::Reset => 5,
        What::Extend(_) => 6,
        What::Pause(_) => 7,
        What::Resume => 8,
        What::Resolve(_) => 9,
    };
    out.number(tag);
    match what {
        What::Extend(Extension { retries, deadline }) => {
            out.number(u64::from(retries));
            put_deadline(out, deadline, base);
        }
        What::Pause(until) => put_deadline(out, until, base),
        What::Resolve(answer) => out.number(place(&HoldAnswer::ALL, &answer)),
        What::Retry
        | What::Skip
        | What::Succeed
        | What::Fail
        | What::Cancel
        | What::Reset
        | What::Resume => {}
    }
}

fn put_deadline(out: &mut Writer, deadline: Option<Deadline>, base: Timestamp) {
    match deadline {
        None => out.number(0),
        Some(Deadline::At(at)) => {
            out.number(1);
            put_instant(out, at, base);
        }
        Some(Deadline::After(span)) => {
            out.number(2);
            out.number(micros(span));
        }
    }
}

fn put_instant(out: &mut Writer, at: Timestamp, base: Timestamp) {
    out.distance(at.as_micros(), base.as_micros());
}

/// Place of one that is among `all`.
fn place<T: PartialEq>(all: &[T], one: &T) -> u64 {
    all.iter().position(|known| known == one).unwrap_or_default() as u64
}

/// Reads orders.
pub(super) fn take(input: &mut Reader<'_>, base: Timestamp) -> Result<Orders, Malformed> {
    let mut given = VecDeque::new();
    for _ in 0..bounded(input, ORDERS_MAX)? {
        given.push_back(take_given(input, base)?);
    }
    let pause = if input.flag()? { Some(take_pause(input, base)?) } else { None };
    let (is_cancel_requested, is_retry_ordered) = (input.flag()?, input.flag()?);
    let extra_retries = input.number_u32()?;
    let mut excluded_hosts = Vec::new();
    for _ in 0..bounded(input, EXCLUDED_MAX)? {
        excluded_hosts.push(input.text()?.into());
    }
    Ok(Orders {
        given,
        pause,
        is_cancel_requested,
        is_retry_ordered,
        extra_retries,
        excluded_hosts,
    })
}

fn bounded(input: &mut Reader<'_>, max: usize) -> Result<usize, Malformed> {
    let count = input.count()?;
    if count > max { Err(Malformed) } else { Ok(count) }
}

fn take_given(input: &mut Reader<'_>, base: Timestamp) -> Result<Given, Malformed> {
    Ok(Given {
        identity: Identity { id: word(input)?, payload: word(input)? },
        at: take_instant(input, base)?,
        by: input.text()?.into(),
        reason: input.text()?.into(),
        what: take_what(input, base)?,
        before: take_footing(input)?,
        after: take_footing(input)?,
    })
}

fn word(input: &mut Reader<'_>) -> Result<u64, Malformed> {
    input.bytes(8)?.try_into().map(u64::from_le_bytes).map_err(|_| Malformed)
}

fn take_pause(input: &mut Reader<'_>, base: Timestamp) -> Result<StepPause, Malformed> {
    Ok(StepPause {
        since: take_instant(input, base)?,
        counted_to: take_instant(input, base)?,
        until: if input.flag()? { Some(take_instant(input, base)?) } else { None },
        by: input.text()?.into(),
        reason: input.text()?.into(),
    })
}

fn take_what(input: &mut Reader<'_>, base: Timestamp) -> Result<What, Malformed> {
    Ok(match input.number()? {
        0 => What::Retry,
        1 => What::Skip,
        2 => What::Succeed,
        3 => What::Fail,
        4 => What::Cancel,
        5 => What::Reset,
        6 => What::Extend(Extension {
            retries: input.number_u32()?,
            deadline: take_deadline(input, base)?,
        }),
        7 => What::Pause(take_deadline(input, base)?),
        8 => What::Resume,
        9 => What::Resolve(one_of(&HoldAnswer::ALL, input)?),
        _ => return Err(Malformed),
    })
}

fn take_deadline(input: &mut Reader<'_>, base: Timestamp) -> Result<Option<Deadline>, Malformed> {
    Ok(match input.number()? {
        0 => None,
        1 => Some(Deadline::At(take_instant(input, base)?)),
        2 => Some(Deadline::After(Duration::from_micros(input.number()?))),
        _ => return Err(Malformed),
    })
}

fn take_footing(input: &mut Reader<'_>) -> Result<Footing, Malformed> {
    Ok(Footing { stage: one_of(&Stage::ALL, input)?, retries: input.number_u32()? })
}

fn one_of<T: Copy>(all: &[T], input: &mut Reader<'_>) -> Result<T, Malformed> {
    let place = usize::try_from(input.number()?).map_err(|_| Malformed)?;
    all.get(place).copied().ok_or(Malformed)
}

fn take_instant(input: &mut Reader<'_>, base: Timestamp) -> Result<Timestamp, Malformed> {
    input.distance(base.as_micros()).map(Timestamp::from_micros)
}
