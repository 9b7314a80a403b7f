//! Whether servers are fit to keep steps, by what they say of themselves.
//!
//! It is looked at when the store opens, and again and again after that: a
//! setting can be changed, and a failover can lead to a server that has another.

use std::sync::Mutex;

use redis::Value;

use super::{commands::INFO, fault::Fault, link::Link, lock, text};

/// The oldest that has all that the scripts rely on.
const REDIS_LEAST: (u32, u32) = (7, 0);
const VALKEY_LEAST: (u32, u32) = (7, 2);

/// What is not as it should be; of several servers the first that has something.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Why steps are not safe there at all, and what to do.
    pub unfit: Option<String>,
    /// What may take back what was acknowledged, and what to do.
    pub risky: Option<String>,
}

impl Findings {
    /// Looks at the server, or at each primary of a cluster.
    ///
    /// # Errors
    /// When it does not say.
    pub async fn of(link: &Link) -> Result<Self, Fault> {
        let texts: Vec<String> = match link.send(INFO.cmd().arg("everything")).await? {
            Value::Map(nodes) => nodes.into_iter().filter_map(|(_, value)| text(value)).collect(),
            value => text(value).into_iter().collect(),
        };
        let mut findings = Self::default();
        for text in texts {
            findings.unfit = findings.unfit.or_else(|| unfit(&text));
            findings.risky = findings.risky.or_else(|| risky(&text));
        }
        Ok(findings)
    }

    /// Whatever there is, the worse first.
    #[must_use]
    pub fn worst(&self) -> Option<&str> {
        self.unfit.as_deref().or(self.risky.as_deref())
    }
}

fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

fn unfit(info: &str) -> Option<String> {
    if let Some(policy) = field(info, "maxmemory_policy")
        && policy != "noeviction"
    {
        return Some(format!(
            "its maxmemory-policy is {policy}, under which steps would be lost; set it to noeviction"
        ));
    }
    // Valkey says which Redis it is like as well.
    let (name, version, (major, minor)) = match field(info, "valkey_version") {
        Some(version) => ("Valkey", version, VALKEY_LEAST),
        None => ("Redis", field(info, "redis_version").unwrap_or_default(), REDIS_LEAST),
    };
    (numbers(version) < Some((major, minor))).then(|| {
        format!("it is {name} {version}; Redis 7.0 or Valkey 7.2 is the oldest that can be used")
    })
}

/// The first two numbers of a version.
fn numbers(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split('.').map(|part| part.parse().ok());
    Some((parts.next()??, parts.next()??))
}

fn risky(info: &str) -> Option<String> {
    (field(info, "aof_enabled") != Some("1")).then(|| {
        "it keeps no append-only file, and a restart of it may take back what was acknowledged; \
         set appendonly to yes"
            .to_owned()
    })
}

/// What was found last.
#[derive(Debug, Default)]
pub struct Watched(Mutex<Findings>);

impl Watched {
    /// Notes what was found, and tells what is new.
    pub fn note(&self, findings: Findings, address: &str) {
        let before = std::mem::replace(&mut *lock(&self.0), findings.clone());
        if before == findings {
            return;
        }
        match findings.worst() {
            Some(why) => tracing::warn!(address, why, "steps are not safe in this Redis"),
            None => tracing::info!(address, "steps are safe in this Redis again"),
        }
    }

    /// Whether there was anything.
    pub fn is_unsafe(&self) -> bool {
        lock(&self.0).worst().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_versions_are_unfit() {
        for (info, is_fit) in [
            ("redis_version:7.0.15\r\n", true),
            ("redis_version:8.2.1\r\n", true),
            ("redis_version:10.0.0\r\n", true),
            ("redis_version:6.2.14\r\n", false),
            ("redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:7.2.5\r\n", true),
            ("redis_version:7.2.4\r\nvalkey_version:9.1.0\r\n", true),
            ("redis_version:7.2.4\r\nvalkey_version:7.1.0\r\n", false),
            ("redis_version:unstable\r\n", false),
            ("", false),
        ] {
            assert_eq!(unfit(info).is_none(), is_fit, "{info:?}: {:?}", unfit(info));
        }
    }

    #[test]
    fn eviction_is_unfit_and_nothing_on_disk_is_risky() {
        let evicts = unfit("redis_version:7.0.15\r\nmaxmemory_policy:allkeys-lru\r\n").unwrap();
        assert!(evicts.contains("allkeys-lru") && evicts.contains("noeviction"), "{evicts}");
        assert_eq!(unfit("redis_version:7.0.15\r\nmaxmemory_policy:noeviction\r\n"), None);
        assert!(risky("aof_enabled:0\r\n").unwrap().contains("appendonly"));
        assert_eq!(risky("aof_enabled:1\r\n"), None);
    }
}
