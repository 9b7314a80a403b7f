//! Signals that reach us and are meant for the command as well.

use std::{fs, io};

use rustix::process::Signal;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

/// What is passed on to the command.
const PASSED_ON: [Signal; 6] =
    [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT, Signal::USR1, Signal::USR2];

/// Signals as they arrive. While this lives they no longer end the process.
pub struct Signals {
    arrivals: mpsc::UnboundedReceiver<Signal>,
}

impl Signals {
    /// Listens, but not to what our parent had ignored: `nohup` and `&` rely
    /// on the command's inheriting that.
    pub fn listen() -> io::Result<Self> {
        let ignored = ignored_by_parent();
        let (sender, arrivals) = mpsc::unbounded_channel();
        for number in PASSED_ON.into_iter().filter(|&number| !contains(ignored, number)) {
            let mut stream = signal(SignalKind::from_raw(number.as_raw()))?;
            let sender = sender.clone();
            tokio::spawn(async move {
                while stream.recv().await.is_some() && sender.send(number).is_ok() {}
            });
        }
        Ok(Self { arrivals })
    }

    /// Signals that somebody else passes on.
    pub fn passed_on() -> (mpsc::UnboundedSender<Signal>, Self) {
        let (sender, arrivals) = mpsc::unbounded_channel();
        (sender, Self { arrivals })
    }

    /// The next signal.
    pub async fn next(&mut self) -> Signal {
        match self.arrivals.recv().await {
            Some(signal) => signal,
            // Every signal was ignored, so none will come.
            None => std::future::pending().await,
        }
    }

    /// What `work` gives, unless a signal asks us to end before.
    pub async fn unless_ended<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Signal> {
        tokio::select! {
            done = work => Ok(done),
            signal = self.next_ending() => Err(signal),
        }
    }

    /// The next signal that asks a process to end. There is no command that
    /// the others could be meant for.
    async fn next_ending(&mut self) -> Signal {
        loop {
            let signal = self.next().await;
            if ends(signal) {
                return signal;
            }
        }
    }
}

/// Whether a signal asks a process to end.
pub fn ends(signal: Signal) -> bool {
    signal != Signal::USR1 && signal != Signal::USR2
}

/// Whether a signal is a person's at the keyboard, who wants no further try.
pub fn cancels(signal: Signal) -> bool {
    signal == Signal::INT || signal == Signal::QUIT
}

/// A signal's usual name, such as `SIGTERM`.
pub fn name(number: i32) -> String {
    let known = [
        (Signal::HUP, "SIGHUP"),
        (Signal::INT, "SIGINT"),
        (Signal::QUIT, "SIGQUIT"),
        (Signal::ILL, "SIGILL"),
        (Signal::ABORT, "SIGABRT"),
        (Signal::BUS, "SIGBUS"),
        (Signal::FPE, "SIGFPE"),
        (Signal::KILL, "SIGKILL"),
        (Signal::USR1, "SIGUSR1"),
        (Signal::SEGV, "SIGSEGV"),
        (Signal::USR2, "SIGUSR2"),
        (Signal::PIPE, "SIGPIPE"),
        (Signal::ALARM, "SIGALRM"),
        (Signal::TERM, "SIGTERM"),
        (Signal::XCPU, "SIGXCPU"),
    ];
    let name = known.iter().find(|(signal, _)| signal.as_raw() == number);
    name.map_or_else(|| format!("signal {number}"), |(_, name)| (*name).to_owned())
}

/// The set of signals that our parent had ignored, a bit each from signal 1.
/// Empty where the system does not say.
fn ignored_by_parent() -> u64 {
    fs::read_to_string("/proc/self/status").map_or(0, |status| ignored_in(&status))
}

fn ignored_in(status: &str) -> u64 {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

fn contains(mask: u64, signal: Signal) -> bool {
    mask >> (signal.as_raw() - 1) & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_are_read_from_the_status() {
        let mask = ignored_in("Name:\treprise\nSigIgn:\t0000000000001001\nSigCgt:\t0\n");
        assert!(contains(mask, Signal::HUP) && contains(mask, Signal::PIPE));
        assert!(!contains(mask, Signal::INT));
        assert_eq!(ignored_in("nothing of the kind"), 0);
    }
}
