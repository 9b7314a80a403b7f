//! Names of keys, and what is behind them.
//!
//! ```text
//! reprise:salt                       string   what chance is drawn from; drawn once
//! reprise:copying                    string   what is copied into here, as long as that is not whole
//! reprise:namespaces                 zset     names of namespaces, those that are gone included
//! reprise:{NAMESPACE}:state          string   packed: revision, live steps, latest change, times, a pause
//! reprise:{NAMESPACE}:configuration  hash     "settings", "policy:NAME", "target:NAME" as JSON
//! reprise:{NAMESPACE}:inline         hash     digest → policy given inline, as JSON
//! reprise:{NAMESPACE}:uses           hash     "policy:NAME", "inline:DIGEST" → steps that use it
//! reprise:{NAMESPACE}:limit:STATE    hash     what a target has promised and spent: `lua/calendar.lua`, `lua/limits.lua`
//! reprise:{NAMESPACE}:permits:STATE  zset     "RUN STEP" → end of the lease of who has a permit, µs
//! reprise:{NAMESPACE}:line:STATE     zset     "RUN STEP" → since when who stands in line has been waiting, µs
//! reprise:{NAMESPACE}:events         zset     "RUN STEP" → next event, µs, or an earlier instant
//! reprise:{NAMESPACE}:lists          zset     "QUEUE DUE RUN STEP" of steps that wait in a queue, with " LABELS" behind it
//!                                             where they have any, " RUN STEP" of steps that belong to a run which was
//!                                             begun, by name
//! reprise:{NAMESPACE}:changes        stream   the latest changes: "RUN STEP" → version
//! reprise:{NAMESPACE}:step:RUN STEP  string   a step: operation, filed event, record
//! reprise:{NAMESPACE}:text:RUN STEP  list     texts of its latest failures
//! ```
//!
//! A namespace's state is of format 1, or of format 2 while the namespace is paused,
//! which adds the end of the pause and its holder. Releases that know format 1 alone
//! work beside this one, and are kept out of what is paused. Both are read.
//!
//! An id has neither braces nor spaces, so no id can make a key of another kind
//! or of another namespace, and all keys of a namespace lie in one slot.

use crate::domain::id::StepKey;

/// What chance is drawn from.
pub const SALT: &str = "reprise:salt";
/// The mark of a store that is the target of a copy which is not whole.
pub const COPYING: &str = "reprise:copying";
/// The register of namespaces.
pub const NAMESPACES: &str = "reprise:namespaces";
/// What every key begins with.
pub const PREFIX: &str = "reprise:";

/// Keys of a namespace.
#[derive(Debug)]
pub struct Keys {
    prefix: String,
    /// Its state.
    pub state: String,
    /// Its settings, policies and targets.
    pub configuration: String,
    /// Its policies given inline.
    pub inline: String,
    /// How many steps use a policy.
    pub uses: String,
    /// Its event index.
    pub events: String,
    /// What stands in its queues and runs.
    pub lists: String,
    /// Its change log.
    pub changes: String,
    /// The states of its targets where steps are parked.
    pub parking: String,
}

impl Keys {
    /// The keys of a namespace.
    #[must_use]
    pub fn new(namespace: &str) -> Self {
        let key = |kind| format!("{PREFIX}{{{namespace}}}:{kind}");
        Self {
            prefix: key(""),
            state: key("state"),
            configuration: key("configuration"),
            inline: key("inline"),
            uses: key("uses"),
            events: key("events"),
            lists: key("lists"),
            changes: key("changes"),
            parking: key("parking"),
        }
    }

    /// Key of a step.
    #[must_use]
    pub fn step(&self, joined: &str) -> String {
        format!("{}step:{joined}", self.prefix)
    }

    /// Key of the texts of its failures.
    #[must_use]
    pub fn text(&self, joined: &str) -> String {
        format!("{}text:{joined}", self.prefix)
    }

    /// Keys of the state of a target.
    #[must_use]
    pub fn target_state(&self, state: &str) -> [String; 4] {
        ["limit", "permits", "line", "parked"].map(|kind| format!("{}{kind}:{state}", self.prefix))
    }

    /// Key of a step, from its name.
    #[must_use]
    pub fn of(&self, key: &StepKey<'_>) -> String {
        let mut name =
            String::with_capacity(self.prefix.len() + 6 + key.run.len() + key.step.len());
        name.push_str(&self.prefix);
        name.push_str("step:");
        name.push_str(key.run);
        name.push(' ');
        name.push_str(key.step);
        name
    }
}
