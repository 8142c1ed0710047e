//! Every configuration key that is understood, and what becomes of it.
//!
//! Litestream's keys are all known. One that has no effect here is told in a warning, unless
//! leaving it out would make the user less safe than the file promises (a database that nobody
//! would replicate, data that would be stored in the clear, an application that nobody would
//! start): that is refused.

/// What becomes of a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Use {
    /// It takes effect.
    Used,
    /// It has no effect, which a warning says.
    Idle,
    /// It is refused unless it is off, and this says what to do.
    Unsafe(&'static str),
}

/// A key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// What becomes of it.
    pub used: Use,
}

const fn used(name: &'static str) -> Key {
    Key { name, used: Use::Used }
}

const fn idle(name: &'static str) -> Key {
    Key { name, used: Use::Idle }
}

const fn refused(name: &'static str, instead: &'static str) -> Key {
    Key { name, used: Use::Unsafe(instead) }
}

/// Keys of the whole file.
pub const TOP: &[Key] = &[
    used("dbs"),
    used("logging"),
    used("state-dir"),
    used("shutdown-sync-timeout"),
    used("sync-interval"),
    used("min-checkpoint-page-count"),
    used("exec"),
    used("addr"),
    used("socket"),
    used("heartbeat-url"),
    used("heartbeat-interval"),
    used("shutdown-sync-interval"),
    idle("mcp-addr"),
    idle("levels"),
    idle("snapshot"),
    idle("retention"),
    idle("validation"),
    idle("validation-interval"),
    idle("verify-compaction"),
    idle("l0-retention"),
    idle("l0-retention-check-interval"),
    idle("auto-recover"),
    idle("meta-dir"),
    idle("max-sync-wal-bytes"),
    idle("max-sync-ltx-files"),
];

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
    refused("dir", "list each database under dbs with its path"),
    refused("pattern", "list each database under dbs with its path"),
    refused("recursive", "list each database under dbs with its path"),
    refused("watch", "list each database under dbs with its path"),
    used("restore-if-db-not-exists"),
    idle("meta-dir"),
    idle("monitor-interval"),
    idle("checkpoint-interval"),
    idle("busy-timeout"),
    idle("truncate-page-n"),
    idle("max-sync-wal-bytes"),
    idle("max-sync-ltx-files"),
];

/// Keys of a replica.
pub const REPLICA: &[Key] = &[
    used("type"),
    used("path"),
    used("url"),
    used("sync-interval"),
    idle("name"),
    idle("validation-interval"),
    idle("auto-recover"),
];

/// Keys that a replica may have and that the whole file may set for all replicas: those of
/// object stores and other servers, and of encryption.
pub const REPLICA_SHARED: &[Key] = &[
    refused("age", "leave it out: this release stores segments as they are, so use an encrypted filesystem"),
    refused("sse-customer-algorithm", "leave it out, and use an encrypted filesystem"),
    refused("sse-customer-key", "leave it out, and use an encrypted filesystem"),
    refused("sse-customer-key-path", "leave it out, and use an encrypted filesystem"),
    refused("sse-kms-key-id", "leave it out, and use an encrypted filesystem"),
    idle("access-key-id"),
    idle("secret-access-key"),
    idle("region"),
    idle("bucket"),
    idle("endpoint"),
    idle("force-path-style"),
    idle("sign-payload"),
    idle("sign-accept-encoding"),
    idle("require-content-md5"),
    idle("skip-verify"),
    idle("part-size"),
    idle("concurrency"),
    idle("storage-class"),
    idle("source"),
    idle("account-name"),
    idle("account-key"),
    idle("sas-token"),
    idle("host"),
    idle("user"),
    idle("password"),
    idle("key-path"),
    idle("concurrent-writes"),
    idle("host-key"),
    idle("webdav-url"),
    idle("webdav-username"),
    idle("webdav-password"),
    idle("jwt"),
    idle("seed"),
    idle("creds"),
    idle("nkey"),
    idle("username"),
    idle("token"),
    idle("tls"),
    idle("root-cas"),
    idle("client-cert"),
    idle("client-key"),
    idle("max-reconnects"),
    idle("reconnect-wait"),
    idle("timeout"),
];

/// Keys of `logging`.
pub const LOGGING: &[Key] = &[used("level"), used("type"), used("format"), used("stderr"), idle("source")];

/// Keys of `socket`.
pub const SOCKET: &[Key] = &[used("enabled"), used("path"), used("permissions")];
