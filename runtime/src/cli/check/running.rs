//! What a running process knows of the databases: it is asked over its socket, if one is there.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use crate::cli::args::Args;
use crate::cli::remote;
use crate::config::Config;
use crate::control::client;

/// How long a process may take to answer.
const TIMEOUT: Duration = Duration::from_secs(2);

/// The faults that the last validation of each database's replica has found, where it has found any. A
/// process that does not answer has nothing to say here: `driftless status` tells of that.
pub(super) fn damage(args: &Args, config: &Config) -> BTreeMap<PathBuf, String> {
    let named = Some(config).filter(|config| !config.path.as_os_str().is_empty());
    let mut sockets = remote::sockets(args, named, None).unwrap_or_default();
    for database in &config.databases {
        sockets.extend(remote::sockets(args, None, Some(&database.path)).unwrap_or_default());
    }
    sockets.sort();
    sockets.dedup();
    let mut damage = BTreeMap::new();
    for socket in sockets {
        let Ok(answer) = client::ask(&socket, "GET", "/status?look=no", None, TIMEOUT) else { continue };
        for entry in answer.body["databases"].as_array().into_iter().flatten() {
            if let (Some(path), Some(faults)) = (entry["database"].as_str(), faults(&entry["validation"])) {
                damage.insert(PathBuf::from(path), faults);
            }
        }
    }
    damage
}

/// The first fault and how many there are besides, if there is one.
pub(in crate::cli) fn faults(validation: &Value) -> Option<String> {
    let first = validation["faults"].get(0)?.as_str()?;
    Some(match validation["faults_count"].as_u64() {
        Some(count) if count > 1 => format!("{first}; and {} more", count - 1),
        _ => first.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Value, faults};

    #[test]
    fn the_first_fault_is_told_and_the_others_counted() {
        let told = |validation: Value| faults(&validation);
        assert_eq!(told(json!(null)), None);
        assert_eq!(told(json!({ "result": "sound", "faults": [], "faults_count": 0 })), None);
        assert_eq!(told(json!({ "faults": ["0/1: gone"], "faults_count": 1 })).unwrap(), "0/1: gone");
        let many = json!({ "faults": ["0/1: gone", "0/2: gone"], "faults_count": 20 });
        assert_eq!(told(many).unwrap(), "0/1: gone; and 19 more");
    }
}
