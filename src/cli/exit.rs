//! What an exit code says. `reprise exec` otherwise ends with its command's own.

use std::process::ExitCode;

/// Why the program ended, as scripts and orchestrators read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It did what was asked.
    Ok,
    /// It could not, for none of the reasons below.
    Failed,
    /// The command line or a file it names is wrong.
    Usage,
    /// What was named does not exist.
    NotFound,
    /// The caller may not do this.
    Permission,
    /// Something stands against it: it exists already, or has changed since.
    Conflict,
    /// The service gave no answer, or none in time.
    Unavailable,
    /// `exec`: no service to ask, and told not to go on without one (EX_UNAVAILABLE).
    NoService,
    /// `exec`: come again later (EX_TEMPFAIL).
    RetryLater,
    /// `exec`: do not come again (EX_CONFIG).
    Stop,
    /// Interrupted from the keyboard.
    Interrupted,
}

impl Exit {
    /// The number that the parent process sees.
    pub fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::NotFound => 3,
            Self::Permission => 4,
            Self::Conflict => 5,
            Self::Unavailable => 6,
            Self::NoService => 69,
            Self::RetryLater => 75,
            Self::Stop => 78,
            Self::Interrupted => 130,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        exit.code().into()
    }
}

/// The table of `--help`.
pub const HELP: &str = "\
Exit codes:
  0    done
  1    failed for none of the reasons below
  2    the command line, or a file it names, is wrong
  3    not found
  4    not permitted
  5    conflict, or a condition does not hold
  6    the service is unavailable or too slow
  69   exec: no service to ask (--offline fail, --offline-timeout)
  75   exec: retry later
  78   exec: stop
  130  interrupted
exec otherwise ends with its command's own code: 128 + n when signal n ended it.";
