//! Where a store is, as it is written on the command line.

use std::{fmt, path::PathBuf, time::Duration};

use super::super::{error::CliError, exit::Exit, serve::sentence};
use crate::store::{
    StoreError,
    embedded::{EmbeddedError, EmbeddedOptions, log},
    redis::{
        RedisError, RedisOptions,
        address::{Address, AddressError},
    },
};

/// Where a store is.
#[derive(Clone, Debug)]
pub enum Place {
    /// An embedded one, in a directory.
    Embedded(PathBuf),
    /// A Redis.
    Redis(Box<Address>),
}

impl Place {
    /// Reads what stands after `flag`.
    pub fn parse(flag: &str, text: &str) -> Result<Self, CliError> {
        let accepted = "accepted: embedded:DIR, or an address of Redis such as redis://127.0.0.1";
        if let Some(dir) = text.strip_prefix("embedded:") {
            return match dir {
                "" => Err(CliError::usage(format!("{flag} embedded: names no directory"))),
                dir => Ok(Self::Embedded(dir.into())),
            };
        }
        if !text.starts_with("redis") {
            return Err(CliError::usage(format!("{flag} is no store")).detail(accepted));
        }
        // What was written is not repeated: there may be a password in it.
        let wrong = |error: AddressError| {
            CliError::usage(format!("{flag} is no address")).detail(sentence(&error))
        };
        Ok(Self::Redis(Box::new(Address::parse(text).map_err(wrong)?)))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedded(dir) => write!(f, "embedded:{}", dir.display()),
            Self::Redis(address) => write!(f, "{address}"),
        }
    }
}

/// Options of an embedded store in `dir`.
pub fn embedded(dir: PathBuf) -> EmbeddedOptions {
    EmbeddedOptions { dir, fsync: log::Fsync::Always, size_max: None }
}

/// Options of a Redis.
pub fn redis(address: Address, timeout: Duration) -> RedisOptions {
    RedisOptions { timeout, ..RedisOptions::new(address) }
}

/// Why an embedded store did not open; `doing` completes "could not …".
pub fn not_opened(doing: &str, error: &EmbeddedError) -> CliError {
    let exit = match error {
        EmbeddedError::Log(log::OpenError::Locked { .. }) | EmbeddedError::Unfinished { .. } => {
            Exit::Conflict
        }
        _ => Exit::Failed,
    };
    let told = CliError::new(exit, format!("could not {doing}: {}", sentence(error)));
    match error {
        EmbeddedError::Log(log::OpenError::Locked { .. }) => {
            told.next("end the server that has it, and try again")
        }
        _ => told,
    }
}

/// Why Redis did not open.
pub fn not_reached(doing: &str, error: &RedisError) -> CliError {
    let exit = match error {
        RedisError::Unreachable { .. } => Exit::Unavailable,
        RedisError::Unfit { .. } => Exit::Conflict,
        RedisError::Empty { .. } => Exit::NotFound,
        RedisError::Store(error) => exit_of(error),
    };
    let told = CliError::new(exit, format!("could not {doing}: {}", sentence(error)));
    match error {
        RedisError::Empty { .. } => told.next("check the address and the number of its database"),
        _ => told,
    }
}

/// How a store's error ends the program.
pub const fn exit_of(error: &StoreError) -> Exit {
    match error {
        StoreError::Unavailable(_) | StoreError::Refused(_) => Exit::Unavailable,
        _ => Exit::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_directory_or_an_address() {
        for text in ["embedded:./data", "redis://127.0.0.1:6379/2", "redis+cluster://a:1,b:2"] {
            assert_eq!(Place::parse("--from", text).unwrap().to_string(), text);
        }
        for (text, told) in [
            ("embedded:", "names no directory"),
            ("data", "accepted: embedded:DIR"),
            ("redis://u:secret@a", "password_file"),
            ("redis://a,b", "several"),
        ] {
            let error = Place::parse("--from", text).unwrap_err();
            assert_eq!(error.exit, Exit::Usage);
            assert!(error.to_string().contains(told), "{error}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }
}
