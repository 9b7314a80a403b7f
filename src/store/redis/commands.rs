//! Every command that the store may send, and so the rights that it needs.

use std::collections::BTreeSet;

use redis::{Cmd, cmd};

use super::{keys::PREFIX, scripts};

/// A command that the store sends by itself. There is no other way to send one,
/// so that an account held to [`rules`] can do all that the store does.
#[derive(Clone, Copy, Debug)]
pub struct Command(&'static str);

impl Command {
    /// The command, without its arguments yet.
    #[must_use]
    pub fn cmd(self) -> Cmd {
        cmd(self.0)
    }

    /// The command, with room for so many arguments of so many bytes in all.
    #[must_use]
    pub fn with_room(self, arguments: usize, bytes: usize) -> Cmd {
        let mut command = Cmd::with_capacity(1 + arguments, self.0.len() + bytes);
        command.arg(self.0);
        command
    }
}

macro_rules! commands {
    ($($name:ident = $word:literal,)*) => {
        $(
            #[doc = concat!("`", $word, "`")]
            pub const $name: Command = Command($word);
        )*
        /// All that the store sends by itself.
        const SENT: &[Command] = &[$($name),*];
    };
}

commands! {
    DEL = "DEL",
    EVAL = "EVAL",
    EVALSHA = "EVALSHA",
    GET = "GET",
    HGET = "HGET",
    HKEYS = "HKEYS",
    HLEN = "HLEN",
    HVALS = "HVALS",
    INFO = "INFO",
    LRANGE = "LRANGE",
    MGET = "MGET",
    PING = "PING",
    ROLE = "ROLE",
    SET = "SET",
    TIME = "TIME",
    UNLINK = "UNLINK",
    ZADD = "ZADD",
    ZCARD = "ZCARD",
    ZRANGE = "ZRANGE",
    ZREM = "ZREM",
    ZSCAN = "ZSCAN",
}

/// What the client library sends to keep connections. `CLIENT SETINFO` is not
/// among them: Redis 7.0 refuses rules that name a subcommand it does not have,
/// and a server that forbids it is used all the same.
const KEPT_UP: &[&str] = &["ASKING", "CLUSTER|INFO", "CLUSTER|SLOTS", "SELECT"];

/// Names of all commands, in lower case and in order: what is sent, what the
/// scripts call, and what keeps connections.
#[must_use]
pub fn all() -> BTreeSet<String> {
    let sent = SENT.iter().map(|command| command.0);
    let scripts = scripts::all();
    let called = scripts.iter().flat_map(|script| script.commands());
    sent.chain(called).chain(KEPT_UP.iter().copied()).map(str::to_lowercase).collect()
}

/// Which keys there are.
#[must_use]
pub fn keys() -> String {
    format!("{PREFIX}*")
}

/// The rules of an account that can do what the store does and nothing else, as
/// `ACL SETUSER` and `user` in an ACL file take them.
#[must_use]
pub fn rules() -> String {
    let allowed: String = all().iter().map(|command| format!(" +{command}")).collect();
    format!("resetkeys ~{} resetchannels -@all{allowed}", keys())
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    #[test]
    fn rules_name_what_is_sent_and_what_scripts_call() {
        let rules = rules();
        assert!(rules.starts_with("resetkeys ~reprise:* resetchannels -@all +"), "{rules}");
        for command in ["evalsha", "hget", "xadd", "unlink", "cluster|slots"] {
            assert!(rules.contains(&format!(" +{command}")), "{command}: {rules}");
        }
        for command in ["keys", "scan", "flushall", "config"] {
            assert!(!all().contains(command), "{command}");
        }
    }

    /// A sentinel has an account of its own, and is asked in `link`; so is a cluster
    /// how it is, which `KEPT_UP` allows.
    #[test]
    fn nothing_else_is_sent() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store/redis");
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() || path.ends_with("commands.rs") {
                continue;
            }
            let asked = ["\"SENTINEL\")", "\"CLUSTER\")"];
            for part in fs::read_to_string(&path).unwrap().split("cmd(").skip(1) {
                let is_ours =
                    part.starts_with(')') || asked.iter().any(|word| part.starts_with(word));
                assert!(is_ours, "{}: cmd({}", path.display(), part.lines().next().unwrap());
            }
        }
    }
}
