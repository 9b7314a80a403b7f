//! The wait before retry *k*, and the random part of it.
//!
//! Jitter is drawn *inside* the capped window. Most libraries add it first and
//! cut at the cap afterwards, where it vanishes: once the base reaches the cap,
//! every client waits exactly the same.

use std::time::Duration;

use super::draw::Draw;

/// How long to wait before each retry. Only [`super::policy::Policy::parse`]
/// makes one, so what its fields promise holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Backoff {
    /// How the wait grows.
    pub shape: Shape,
    /// Longest wait, jitter included. More than zero; [`Duration::MAX`] is no cap.
    pub delay_max: Duration,
    /// The wait before the first retry, when it is not the shape's. The shape
    /// then begins with the second retry. Never jittered.
    pub first_delay: Option<Duration>,
    /// The random part.
    pub jitter: Jitter,
}

/// How the wait grows with k = 1, 2, 3 …
#[derive(Clone, Debug, PartialEq)]
pub enum Shape {
    /// Always `delay`; none at all is a fixed wait of zero.
    Fixed {
        /// The wait.
        delay: Duration,
    },
    /// `delay + (k − 1) · increment`.
    Linear {
        /// The wait before the first retry.
        delay: Duration,
        /// What each further retry adds.
        increment: Duration,
    },
    /// `delay · factor^(k−1)`; after `doublings_max` multiplications each retry
    /// adds the last product once more (Cloud Tasks' `max_doublings`).
    Exponential {
        /// The wait before the first retry.
        delay: Duration,
        /// Finite, 0 or more.
        factor: f64,
        /// Multiplications at most; `u32::MAX` is no bound.
        doublings_max: u32,
    },
    /// `(2^k − 1) · delay`, as Dagster's exponential backoff grows.
    DoublingSum {
        /// The wait before the first retry.
        delay: Duration,
    },
    /// `delay · F(k)` with F = 1, 1, 2, 3, 5 …
    Fibonacci {
        /// The wait before the first retry.
        delay: Duration,
    },
    /// The waits one by one; never empty.
    Schedule {
        /// The waits in order.
        delays: Box<[Duration]>,
        /// Whether the last one repeats; otherwise no further retry.
        repeats: bool,
    },
}

/// The random part of a wait `h`, always inside `[0, delay_max]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Jitter {
    /// `h` itself.
    None,
    /// Uniform in `[0, h]`.
    Full,
    /// Uniform in `[h/2, h]`.
    Equal,
    /// Uniform in `[h·(1−ratio), h·(1+ratio)]`, shifted down to end at the cap.
    Ratio(f64),
    /// Uniform in `[h−delay, h+delay]`, `delay` being the shape's first wait,
    /// shifted down to end at the cap.
    Base,
    /// Uniform in `[delay, 3 · the wait before]` (AWS, "Exponential Backoff and
    /// Jitter"); of the shape only `delay` is used.
    Decorrelated,
}

/// The bounds between which a wait is drawn, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Shortest wait.
    pub min: Duration,
    /// Longest wait.
    pub max: Duration,
}

impl Window {
    /// The wait at place `draw` of the window.
    #[must_use]
    pub fn at(self, draw: Draw) -> Duration {
        let width = self.max.saturating_sub(self.min);
        if planted!("jitter-past-the-window") {
            return self.max.saturating_add(scaled(width, draw.get()));
        }
        self.min.saturating_add(scaled(width, draw.get())).min(self.max)
    }

    /// How far the bounds are apart.
    #[must_use]
    pub fn width(self) -> Duration {
        self.max.saturating_sub(self.min)
    }
}

impl Backoff {
    /// No wait at all.
    pub const NONE: Self = Self {
        shape: Shape::Fixed { delay: Duration::ZERO },
        delay_max: Duration::MAX,
        first_delay: None,
        jitter: Jitter::None,
    };

    /// The window from which the wait before retry `k` (1 is the first) is
    /// drawn. None when the schedule has ended. `before` is the wait before the
    /// retry before this one, zero when there was none.
    #[must_use]
    pub fn window(&self, k: u32, before: Duration) -> Option<Window> {
        let k = match self.first_delay {
            Some(first) if k <= 1 => return Some(self.exactly(first)),
            Some(_) => k - 1,
            None => k.max(1),
        };
        let height = self.shape.height(k)?.min(self.delay_max);
        let base = self.shape.base().min(self.delay_max);
        Some(match self.jitter {
            Jitter::None => self.exactly(height),
            Jitter::Full => Window { min: Duration::ZERO, max: height },
            Jitter::Equal => Window { min: height / 2, max: height },
            Jitter::Ratio(ratio) => self.around(height, scaled(height, ratio)),
            Jitter::Base => self.around(height, base),
            Jitter::Decorrelated => {
                let top = before.max(base).saturating_mul(3).min(self.delay_max);
                Window { min: base, max: top.max(base) }
            }
        })
    }

    fn exactly(&self, delay: Duration) -> Window {
        let delay = delay.min(self.delay_max);
        Window { min: delay, max: delay }
    }

    /// `[height − reach, height + reach]`, moved down as a whole to end at the
    /// cap, so that it keeps its width there.
    fn around(&self, height: Duration, reach: Duration) -> Window {
        let max = height.saturating_add(reach).min(self.delay_max);
        let min = max.saturating_sub(reach.saturating_mul(2));
        Window { min, max }
    }
}

impl Shape {
    /// The wait before retry `k` ≥ 1, without cap and jitter, saturating.
    /// None when a schedule has ended.
    fn height(&self, k: u32) -> Option<Duration> {
        Some(match self {
            Self::Fixed { delay } => *delay,
            Self::Linear { delay, increment } => {
                delay.saturating_add(increment.saturating_mul(k - 1))
            }
            Self::Exponential { delay, factor, doublings_max } => {
                exponential(*delay, *factor, *doublings_max, k - 1)
            }
            Self::DoublingSum { delay } => scaled(*delay, (f64::from(k)).exp2() - 1.0),
            Self::Fibonacci { delay } => scaled(*delay, fibonacci(k)),
            Self::Schedule { delays, repeats } => {
                let at = usize::try_from(k - 1).unwrap_or(usize::MAX);
                match delays.get(at) {
                    Some(delay) => *delay,
                    None if *repeats => *delays.last()?,
                    None => return None,
                }
            }
        })
    }

    /// The shape's own unit: its first wait.
    fn base(&self) -> Duration {
        match self {
            Self::Fixed { delay }
            | Self::Linear { delay, .. }
            | Self::Exponential { delay, .. }
            | Self::DoublingSum { delay }
            | Self::Fibonacci { delay } => *delay,
            Self::Schedule { delays, .. } => delays.first().copied().unwrap_or(Duration::ZERO),
        }
    }
}

fn exponential(delay: Duration, factor: f64, doublings_max: u32, steps: u32) -> Duration {
    let doublings = steps.min(doublings_max);
    let product = scaled(delay, factor.powf(f64::from(doublings)));
    product.saturating_mul((steps - doublings).saturating_add(1))
}

/// F(k) with F(1) = F(2) = 1. Exact up to F(78); beyond, more than any span.
fn fibonacci(k: u32) -> f64 {
    let (mut a, mut b) = (0.0_f64, 1.0_f64);
    for _ in 0..k.min(200) {
        (a, b) = (b, a + b);
    }
    a
}

/// `span · factor`, saturating at [`Duration::MAX`]; whole when the factor is.
fn scaled(span: Duration, factor: f64) -> Duration {
    if span.is_zero() || factor <= 0.0 {
        return Duration::ZERO;
    }
    // Whole factors are multiplied exactly: 0.1 s · 3 is not 0.30000000000000004 s.
    if factor.fract() == 0.0 && factor <= f64::from(u32::MAX) {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "checked to be whole and in range"
        )]
        return span.saturating_mul(factor as u32);
    }
    Duration::try_from_secs_f64(span.as_secs_f64() * factor).unwrap_or(Duration::MAX)
}
