//! What the log holds: each entry says absolutely what becomes of one key.

use super::super::pack::{Malformed, Reader, Writer};

/// One entry of the log or of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry<'a> {
    /// The store's salt.
    Salt(&'a [u8]),
    /// A namespace and its settings; `changes` is the number of its latest change.
    Namespace {
        /// Its name.
        namespace: &'a str,
        /// Revision of its configuration from here on.
        revision: u64,
        /// Number of its latest change.
        changes: u64,
        /// Its stored form.
        value: &'a [u8],
    },
    /// A namespace is gone.
    NamespaceGone {
        /// Its name.
        namespace: &'a str,
    },
    /// A policy with its revisions.
    Policy {
        /// Its namespace.
        namespace: &'a str,
        /// Revision of the namespace's configuration from here on.
        revision: u64,
        /// Its name.
        name: &'a str,
        /// Its stored form; empty when it is gone.
        value: &'a [u8],
    },
    /// A target.
    Target {
        /// Its namespace.
        namespace: &'a str,
        /// Revision of the namespace's configuration from here on.
        revision: u64,
        /// Its name.
        name: &'a str,
        /// Its stored form; empty when it is deleted.
        value: &'a [u8],
    },
    /// A policy given inline.
    Inline {
        /// Its namespace.
        namespace: &'a str,
        /// Digest of its content.
        digest: u128,
        /// Its stored form; empty when it is gone.
        value: &'a [u8],
    },
    /// A step.
    Step {
        /// Which.
        step: StepChange<'a>,
        /// Its stored record; empty when it is forgotten.
        value: &'a [u8],
    },
    /// What a change of a step charged to targets. Unlike the others it says what
    /// is added, so it counts once: a state knows the change it is of.
    Charges {
        /// The step, and the change.
        step: StepChange<'a>,
        /// Their stored form.
        value: &'a [u8],
    },
    /// What a target has granted, promised and spent.
    TargetState {
        /// Its namespace.
        namespace: &'a str,
        /// The change that it is of.
        changes: u64,
        /// The name of the state.
        state: &'a str,
        /// Its stored form.
        value: &'a [u8],
    },
    /// What is known of a target's health.
    TargetHealth {
        /// Its namespace.
        namespace: &'a str,
        /// The name of the state.
        state: &'a str,
        /// Its stored form.
        value: &'a [u8],
    },
    /// The cooldown of a target is ended by order. Like charges it counts once.
    Lift {
        /// Its namespace.
        namespace: &'a str,
        /// The change after which it was.
        changes: u64,
        /// When, µs.
        at_us: u64,
        /// The name of the state.
        state: &'a str,
    },
    /// The service is back after an outage, and leases are judged leniently for
    /// a while: should it end once more meanwhile, they still are.
    Outage {
        /// The last instant before the outage, µs.
        before_us: u64,
        /// The end of the grace, µs.
        until_us: u64,
    },
    /// Another store is copied into this one; empty when that is done.
    Copying(&'a [u8]),
    /// The texts of a step's failures.
    Evidence {
        /// Its namespace.
        namespace: &'a str,
        /// Run and step.
        joined: &'a str,
        /// Their stored form.
        value: &'a [u8],
    },
}

/// Which step changed, and where that stands in the change log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepChange<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Run and step.
    pub joined: &'a str,
    /// Number of the change; 0 in a snapshot, which tells states, not changes.
    pub number: u64,
    /// When, µs.
    pub at_us: u64,
}

impl<'a> Entry<'a> {
    /// The entry as head and value, to be written one after the other.
    #[must_use]
    pub fn parts(&self) -> (Vec<u8>, &'a [u8]) {
        let mut head = Writer::with_capacity(64);
        let value = match *self {
            Self::Salt(salt) => {
                head.number(0);
                salt
            }
            Self::Namespace { namespace, revision, changes, value } => {
                head.number(1);
                head.text(namespace);
                head.number(revision);
                head.number(changes);
                value
            }
            Self::NamespaceGone { namespace } => {
                head.number(2);
                head.text(namespace);
                &[]
            }
            Self::Policy { namespace, revision, name, value } => {
                head.number(3);
                head.text(namespace);
                head.number(revision);
                head.text(name);
                value
            }
            Self::Target { namespace, revision, name, value } => {
                head.number(8);
                head.text(namespace);
                head.number(revision);
                head.text(name);
                value
            }
            Self::Inline { namespace, digest, value } => {
                head.number(4);
                head.text(namespace);
                head.bytes(&digest.to_le_bytes());
                value
            }
            Self::Step { step, value } => {
                head.number(5);
                head.text(step.namespace);
                head.text(step.joined);
                head.number(step.number);
                head.number(step.at_us);
                value
            }
            Self::Charges { step, value } => {
                head.number(9);
                head.text(step.namespace);
                head.text(step.joined);
                head.number(step.number);
                head.number(step.at_us);
                value
            }
            Self::TargetState { namespace, changes, state, value } => {
                head.number(10);
                head.text(namespace);
                head.number(changes);
                head.text(state);
                value
            }
            Self::TargetHealth { namespace, state, value } => {
                head.number(12);
                head.text(namespace);
                head.text(state);
                value
            }
            Self::Lift { namespace, changes, at_us, state } => {
                head.number(13);
                head.text(namespace);
                head.number(changes);
                head.number(at_us);
                head.text(state);
                &[]
            }
            Self::Outage { before_us, until_us } => {
                head.number(7);
                head.number(before_us);
                head.number(until_us);
                &[]
            }
            Self::Copying(mark) => {
                head.number(11);
                mark
            }
            Self::Evidence { namespace, joined, value } => {
                head.number(6);
                head.text(namespace);
                head.text(joined);
                value
            }
        };
        (head.into_bytes(), value)
    }

    /// Reads an entry.
    ///
    /// # Errors
    /// When it is none.
    pub fn read(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut input = Reader::new(bytes);
        Ok(match input.number()? {
            0 => Self::Salt(input.rest()),
            1 => {
                let (namespace, revision, changes) =
                    (input.text()?, input.number()?, input.number()?);
                Self::Namespace { namespace, revision, changes, value: input.rest() }
            }
            2 => Self::NamespaceGone { namespace: input.text()? },
            3 => {
                let (namespace, revision, name) = (input.text()?, input.number()?, input.text()?);
                Self::Policy { namespace, revision, name, value: input.rest() }
            }
            4 => {
                let namespace = input.text()?;
                let digest =
                    u128::from_le_bytes(input.bytes(16)?.try_into().map_err(|_| Malformed)?);
                Self::Inline { namespace, digest, value: input.rest() }
            }
            5 => Self::Step { step: StepChange::read(&mut input)?, value: input.rest() },
            6 => Self::Evidence {
                namespace: input.text()?,
                joined: input.text()?,
                value: input.rest(),
            },
            7 => Self::Outage { before_us: input.number()?, until_us: input.number()? },
            8 => {
                let (namespace, revision, name) = (input.text()?, input.number()?, input.text()?);
                Self::Target { namespace, revision, name, value: input.rest() }
            }
            9 => Self::Charges { step: StepChange::read(&mut input)?, value: input.rest() },
            10 => {
                let (namespace, changes, state) = (input.text()?, input.number()?, input.text()?);
                Self::TargetState { namespace, changes, state, value: input.rest() }
            }
            11 => Self::Copying(input.rest()),
            12 => {
                let (namespace, state) = (input.text()?, input.text()?);
                Self::TargetHealth { namespace, state, value: input.rest() }
            }
            13 => {
                let (namespace, changes) = (input.text()?, input.number()?);
                Self::Lift { namespace, changes, at_us: input.number()?, state: input.text()? }
            }
            _ => return Err(Malformed),
        })
    }
}

impl<'a> StepChange<'a> {
    fn read(input: &mut Reader<'a>) -> Result<Self, Malformed> {
        Ok(Self {
            namespace: input.text()?,
            joined: input.text()?,
            number: input.number()?,
            at_us: input.number()?,
        })
    }
}
