//! The command as a process.

use std::{
    ffi::OsString,
    fs::File,
    io,
    os::unix::process::ExitStatusExt as _,
    process::{ExitStatus, Stdio},
};

use rustix::process::{Pid, Signal};
use tokio::{
    io::AsyncWriteExt as _,
    process::{Child, Command},
};

use super::{
    action::{ACTION_FILE, ActionFile},
    signals,
    tail::Tail,
};

/// How a command ended, as its process tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// It exited by itself.
    Exited(i32),
    /// A signal ended it.
    Signalled(i32),
    /// It could not be started.
    NotStarted {
        /// 127 when it was not found, 126 otherwise, as shells have it.
        code: i32,
        /// Why.
        cause: String,
    },
}

impl End {
    /// Reads why a command could not be started.
    fn not_started(program: Option<&OsString>, error: &io::Error) -> Self {
        let program = program.map(|it| it.to_string_lossy()).unwrap_or_default();
        match error.kind() {
            io::ErrorKind::NotFound => {
                Self::NotStarted { code: 127, cause: format!("command not found: {program}") }
            }
            _ => Self::NotStarted { code: 126, cause: format!("cannot run {program}: {error}") },
        }
    }

    /// What a shell would say: the exit code, or 128 and the signal.
    pub fn shell_code(&self) -> i32 {
        match *self {
            Self::Exited(code) | Self::NotStarted { code, .. } => code,
            Self::Signalled(signal) => 128 + signal,
        }
    }
}

impl From<ExitStatus> for End {
    fn from(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Exited(code),
            (None, signal) => Self::Signalled(signal.unwrap_or(Signal::KILL.as_raw())),
        }
    }
}

/// What a command reads from its stdin.
pub enum Input {
    /// What we would.
    Ours,
    /// These bytes, and then its end.
    Given(Vec<u8>),
}

/// A command that runs.
pub struct Running {
    child: Child,
    terminal: Option<File>,
    tail: Option<Tail>,
    /// None where no file could be made: then no action is named.
    action: Option<ActionFile>,
}

impl Running {
    /// Starts the command. Without a terminal it gets a process group of its
    /// own, so that what it starts in turn receives its signals too; on a
    /// terminal it stays in ours, where the keyboard and job control reach it.
    pub fn start(
        command: &[OsString],
        environment: Vec<(&'static str, String)>,
        keep_stderr: bool,
        input: Input,
    ) -> Result<Self, End> {
        Self::spawn(command, environment, keep_stderr, input)
            .map_err(|error| End::not_started(command.first(), &error))
    }

    fn spawn(
        command: &[OsString],
        environment: Vec<(&'static str, String)>,
        keep_stderr: bool,
        input: Input,
    ) -> io::Result<Self> {
        let terminal = File::open("/dev/tty").ok();
        let (program, arguments) = command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let mut process = Command::new(program);
        let action = ActionFile::create().ok();
        process.args(arguments).envs(environment);
        process.envs(action.iter().map(|file| (ACTION_FILE, file.path())));
        if keep_stderr {
            process.stderr(Stdio::piped());
        }
        if let Input::Given(_) = input {
            process.stdin(Stdio::piped());
        }
        if terminal.is_none() {
            process.process_group(0);
        }
        let mut child = process.spawn()?;
        if let (Input::Given(bytes), Some(mut stdin)) = (input, child.stdin.take()) {
            // A command that does not read its input is none the worse for it.
            tokio::spawn(async move { stdin.write_all(&bytes).await });
        }
        let tail = match child.stderr.take() {
            Some(stderr) => Some(Tail::follow(File::from(stderr.into_owned_fd()?))?),
            None => None,
        };
        Ok(Self { child, terminal, tail, action })
    }

    /// Waits for its end. May be called again when it was not waited out.
    pub async fn ended(&mut self) -> End {
        match self.child.wait().await {
            Ok(status) => status.into(),
            Err(e) => End::NotStarted { code: 126, cause: format!("lost sight of it: {e}") },
        }
    }

    /// Sends it a signal; one that has ended needs none.
    pub fn signal(&self, signal: Signal) {
        let pid = self.child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
        if let Some(pid) = pid {
            let _ = match self.terminal {
                None => rustix::process::kill_process_group(pid, signal),
                Some(_) => rustix::process::kill_process(pid, signal),
            };
        }
    }

    /// Passes a signal on that we received, unless the terminal has sent it to
    /// the command as well: what is typed goes to the whole foreground group.
    pub fn pass_on(&self, signal: Signal) {
        if !(signals::cancels(signal) && self.in_foreground()) {
            self.signal(signal);
        }
    }

    fn in_foreground(&self) -> bool {
        let front = self.terminal.as_ref().and_then(|tty| rustix::termios::tcgetpgrp(tty).ok());
        front == Some(rustix::process::getpgrp())
    }

    /// The end of its stderr; empty when it was not kept.
    pub async fn stderr_tail(&mut self) -> String {
        match self.tail.take() {
            Some(tail) => tail.text().await,
            None => String::new(),
        }
    }

    /// The action that was under way, where the command said so; else empty.
    pub fn action(&self) -> String {
        self.action.as_ref().map(ActionFile::action).unwrap_or_default()
    }
}
