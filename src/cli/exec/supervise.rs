//! Watches over a command while it runs: its end, the time it may take,
//! signals meant for it, and what becomes of its lease.

use std::time::Duration;

use rustix::process::Signal;
use tokio::{sync::mpsc, time::Instant};

use super::{
    child::{End, Running},
    messages::{Event, Teller},
    service::News,
    signals::{self, Signals},
};

/// What a command may take and bear.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// How long it may run. `None` is for ever.
    pub timeout: Option<Duration>,
    /// How long it has from TERM to KILL when we end it.
    pub kill_after: Duration,
    /// Whether it is ended when its lease is lost. A late success still counts.
    pub end_when_lost: bool,
}

/// How a command ended, and what we had to do with it.
#[derive(Debug)]
pub struct Ended {
    /// What its process told.
    pub end: End,
    /// How long it ran.
    pub ran: Duration,
    /// Why we ended it. `None` when it ended by itself.
    pub cut: Option<Cut>,
    /// The first signal to end that reached us meanwhile.
    pub told: Option<Signal>,
    /// The end of its stderr.
    pub stderr: String,
    /// The action that was under way, where it said so.
    pub action: String,
}

/// Why we ended a command before it was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// It took longer than it may.
    TimedOut,
    /// The service says that its step was cancelled.
    Canceled,
    /// Its lease was lost.
    LeaseLost,
}

impl Ended {
    /// A command that never ran.
    pub fn not_started(end: End) -> Self {
        let (stderr, action) = <(String, String)>::default();
        Self { end, ran: Duration::ZERO, cut: None, told: None, stderr, action }
    }

    /// Whether the command did its work. One that we ended did not, whatever
    /// code it left with.
    pub fn succeeded(&self) -> bool {
        self.end == End::Exited(0) && self.cut.is_none()
    }

    /// The code that we end with for it. One that we ended and that left with
    /// 0 all the same is told apart as `timeout` and shells do.
    pub fn exit_code(&self) -> u8 {
        let code = match (self.end.shell_code(), self.cut) {
            (0, Some(Cut::TimedOut)) => 124,
            (0, Some(_)) => 130,
            (code, _) => code,
        };
        u8::try_from(code).unwrap_or(1)
    }
}

/// Waits for the command's end, and hastens it where that is called for.
pub async fn supervise(
    running: Running,
    bounds: &Bounds,
    signals: &mut Signals,
    news: &mut mpsc::Receiver<News>,
    teller: &Teller,
) -> Ended {
    let began = Instant::now();
    let mut watch = Watch { running, bounds, teller, cut: None, told: None, kill_at: None };
    let timeout_at = bounds.timeout.and_then(|timeout| began.checked_add(timeout));
    let end = loop {
        tokio::select! {
            end = watch.running.ended() => break end,
            signal = signals.next() => watch.pass_on(signal),
            Some(news) = news.recv() => watch.heard(news),
            () = instant(timeout_at), if watch.cut.is_none() => watch.cut_short(Cut::TimedOut),
            () = instant(watch.kill_at) => watch.kill(),
        }
    };
    let Watch { mut running, cut, told, .. } = watch;
    let ran = began.elapsed();
    let stderr = running.stderr_tail().await;
    Ended { end, ran, cut, told, stderr, action: running.action() }
}

struct Watch<'a> {
    running: Running,
    bounds: &'a Bounds,
    teller: &'a Teller,
    cut: Option<Cut>,
    told: Option<Signal>,
    kill_at: Option<Instant>,
}

impl Watch<'_> {
    fn pass_on(&mut self, signal: Signal) {
        if signals::ends(signal) && self.told.is_none() {
            self.told = Some(signal);
            self.teller.tell(&Event::PassedOn { signal: signals::name(signal.as_raw()) });
        }
        self.running.pass_on(signal);
    }

    fn heard(&mut self, news: News) {
        match news {
            News::LeaseLost { cause } => {
                let ending = self.bounds.end_when_lost;
                self.teller.tell(&Event::LeaseLost { cause, ending });
                if ending {
                    self.cut_short(Cut::LeaseLost);
                }
            }
            News::CancelRequested => self.cut_short(Cut::Canceled),
        }
    }

    /// TERM now, KILL when that was not enough. The first reason stands.
    fn cut_short(&mut self, cut: Cut) {
        if self.cut.is_some() {
            return;
        }
        self.cut = Some(cut);
        self.kill_at = Instant::now().checked_add(self.bounds.kill_after);
        match cut {
            Cut::TimedOut => {
                let seconds = self.bounds.timeout.unwrap_or_default().as_secs_f64();
                self.teller.tell(&Event::TimedOut { seconds });
            }
            Cut::Canceled => self.teller.tell(&Event::CancelRequested {}),
            Cut::LeaseLost => {}
        }
        self.running.signal(Signal::TERM);
    }

    fn kill(&mut self) {
        self.kill_at = None;
        let seconds = self.bounds.kill_after.as_secs_f64();
        self.teller.tell(&Event::Killed { seconds });
        self.running.signal(Signal::KILL);
    }
}

/// Waits until an instant; for ever when there is none.
async fn instant(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
