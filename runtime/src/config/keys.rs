//! Every configuration key that is understood, and what becomes of it.
//!
//! Litestream's keys are all known, and `docs/PARITY.md` lists them. One that has no effect here is
//! told in a warning that says what happens instead, unless leaving it out would make the user less
//! safe than the file promises (a database that nobody would replicate, data that would be stored
//! in the clear): that is refused. The options of replicas are in
//! [`options`](super::replica::options).

/// What becomes of a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Use {
    /// It takes effect.
    Used,
    /// It has no effect, and a warning says what happens instead. Its value is still read as what
    /// it should be.
    Idle(Form, &'static str),
    /// It is refused unless it is off, and this says what to do.
    Refused(&'static str),
}

/// What a value looks like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// Text of any kind.
    Text,
    /// A duration.
    Duration,
    /// A whole number.
    Number,
    /// A truth value.
    Truth,
    /// A mapping with these keys.
    Map(&'static [Key]),
}

/// A key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// What becomes of it.
    pub used: Use,
}

const fn used(name: &'static str) -> Key {
    Key { name, used: Use::Used }
}

const fn idle(name: &'static str, form: Form, instead: &'static str) -> Key {
    Key { name, used: Use::Idle(form, instead) }
}

const fn refused(name: &'static str, instead: &'static str) -> Key {
    Key { name, used: Use::Refused(instead) }
}

const AFTER_LEVELS: &str = "passes follow the compactions, at most one each l0-retention";
const BY_EVENT: &str = "changes are seen as they happen";
const BY_PAGES: &str = "checkpoints go by min-checkpoint-page-count, and bound the wal by themselves";
const BY_MEMORY: &str = "how much is sent at a time is bounded by memory";
const SFTP: &str =
    "it belongs to sftp replicas: mount the place and name the directory, or use webdavs:// or s3://";
const NATS: &str = "it belongs to nats replicas: use s3:// or a directory";

/// Keys of a level.
pub const LEVEL: &[Key] = &[used("interval")];
/// Keys of snapshots.
pub const SNAPSHOT: &[Key] = &[used("interval"), used("retention")];
/// Keys of `validation`.
pub const VALIDATION: &[Key] = &[used("interval")];
/// Keys of `lease`.
pub const LEASE: &[Key] =
    &[used("url"), used("ttl"), used("fence-retention"), used("address"), used("promote"), used("demote")];
/// Keys of `retention`.
pub const RETENTION: &[Key] = &[used("enabled")];

/// Keys of the whole file.
pub const TOP: &[Key] = &[
    used("dbs"),
    used("logging"),
    used("state-dir"),
    used("exec"),
    used("addr"),
    used("max-hot"),
    used("lease"),
    used("socket"),
    used("heartbeat-url"),
    used("heartbeat-interval"),
    used("shutdown-sync-timeout"),
    used("shutdown-sync-interval"),
    used("sync-interval"),
    used("min-checkpoint-page-count"),
    used("compression"),
    used("compression-level"),
    idle("mcp-addr", Form::Text, "there is no mcp server; commands with -json answer the same questions"),
    used("levels"),
    used("snapshot"),
    used("retention"),
    used("l0-retention"),
    idle("l0-retention-check-interval", Form::Duration, AFTER_LEVELS),
    used("validation"),
    used("verify-compaction"),
    used("validation-interval"),
    idle("auto-recover", Form::Truth, RECOVERS),
    idle("max-sync-ltx-files", Form::Number, BY_MEMORY),
];

const RECOVERS: &str =
    "local state that is lost is found again by proof, or the process ends with exit code 5 and says why";

/// Keys of a database.
pub const DATABASE: &[Key] = &[
    used("path"),
    used("replica"),
    used("replicas"),
    used("url"),
    used("meta-path"),
    used("state-dir"),
    used("sync-interval"),
    used("min-checkpoint-page-count"),
    used("compression"),
    used("compression-level"),
    used("restore-if-db-not-exists"),
    used("dir"),
    used("pattern"),
    used("recursive"),
    used("watch"),
    used("meta-dir"),
    used("snapshot"),
    idle("monitor-interval", Form::Duration, BY_EVENT),
    idle("checkpoint-interval", Form::Duration, BY_PAGES),
    idle("truncate-page-n", Form::Number, BY_PAGES),
    idle("busy-timeout", Form::Duration, "no lock of the database is waited for longer than 20 ms"),
    idle("max-sync-wal-bytes", Form::Number, BY_MEMORY),
];

/// Keys of a replica, besides its options.
pub const REPLICA: &[Key] = &[
    used("type"),
    used("path"),
    used("url"),
    used("sync-interval"),
    idle("name", Form::Text, "a database has one replica, which needs no name"),
    used("validation-interval"),
    idle("auto-recover", Form::Truth, RECOVERS),
    idle("max-sync-ltx-files", Form::Number, BY_MEMORY),
];

/// Keys that a replica may have and that the whole file may set for all replicas, of which this
/// release has no use.
pub const REPLICA_SHARED: &[Key] = &[
    refused("age", "use sse-kms-key-id or sse-customer-key; litestream 0.5 refuses it as well"),
    refused("host", SFTP),
    refused("user", SFTP),
    refused("password", SFTP),
    refused("key-path", SFTP),
    refused("concurrent-writes", SFTP),
    refused("host-key", SFTP),
    refused("jwt", NATS),
    refused("seed", NATS),
    refused("creds", NATS),
    refused("nkey", NATS),
    refused("username", NATS),
    refused("token", NATS),
    refused("tls", NATS),
    refused("root-cas", NATS),
    refused("client-cert", NATS),
    refused("client-key", NATS),
    refused("max-reconnects", NATS),
    refused("reconnect-wait", NATS),
    refused("timeout", NATS),
];

/// Keys of `logging`.
pub const LOGGING: &[Key] = &[
    used("level"),
    used("type"),
    used("format"),
    used("stderr"),
    idle("source", Form::Truth, "lines name no place in the source"),
];

/// Keys of `socket`.
pub const SOCKET: &[Key] = &[used("enabled"), used("path"), used("permissions")];
