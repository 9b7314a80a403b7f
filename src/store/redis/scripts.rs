//! The scripts, as the server gets them.
//!
//! Each is one file under `lua`, put behind the same prelude. A script that
//! grants is refused by a server that is out of memory; one that settles is not,
//! since what ends or reports has to get in.

use std::sync::LazyLock;

use redis::{Cmd, cmd};

/// A script and its digest.
#[derive(Debug)]
pub struct Script {
    /// Its file.
    pub name: &'static str,
    source: String,
    digest: String,
}

const COMMON: &str = include_str!("lua/common.lua");

macro_rules! script {
    ($(#[$doc:meta])* $name:ident, $file:literal, $flags:literal) => {
        $(#[$doc])*
        pub static $name: LazyLock<Script> =
            LazyLock::new(|| Script::new($file, $flags, include_str!(concat!("lua/", $file, ".lua"))));
    };
}

script!(
    /// Decides items of which one or another grants.
    GRANT, "settle", ""
);
script!(
    /// Decides items that grant nothing.
    SETTLE, "settle", " flags=allow-oom"
);
script!(
    /// Finds steps whose event may have come.
    PEEK, "peek", " flags=allow-oom"
);
script!(
    /// Reads what governs a namespace.
    DESCRIBE, "describe", " flags=no-writes"
);
script!(
    /// Reads changes.
    FOLLOW, "follow", " flags=no-writes"
);
script!(
    /// Changes what governs a namespace.
    CONFIGURE, "configure", ""
);
script!(
    /// Pauses a namespace.
    PAUSE, "pause", " flags=allow-oom"
);
script!(
    /// Founds a namespace that a copy fills.
    FOUND, "found", ""
);
script!(
    /// Puts steps into it.
    IMPORT, "import", ""
);

/// Every script.
pub fn all() -> [&'static Script; 9] {
    [&GRANT, &SETTLE, &PEEK, &DESCRIBE, &FOLLOW, &CONFIGURE, &PAUSE, &FOUND, &IMPORT]
}

impl Script {
    fn new(name: &'static str, flags: &str, body: &str) -> Self {
        let source = format!("#!lua{flags}\n{COMMON}\n{body}");
        let digest = redis::Script::new(&source).get_hash().to_owned();
        Self { name, source, digest }
    }

    /// As the server gets it.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// A call by digest, or with the source for a server that does not know it.
    #[must_use]
    pub fn call(&self, keys: &[impl AsRef<str>], args: &[impl AsRef<[u8]>], known: bool) -> Cmd {
        let mut call = if known { cmd("EVALSHA") } else { cmd("EVAL") };
        call.arg(if known { &self.digest } else { &self.source }).arg(keys.len());
        for key in keys {
            call.arg(key.as_ref());
        }
        for arg in args {
            call.arg(arg.as_ref());
        }
        call
    }
}
