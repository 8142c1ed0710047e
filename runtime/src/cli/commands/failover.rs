//! Commands of failover.

use super::{Command, switch, value};

pub(super) const STANDBY: Command = Command {
    name: "standby",
    summary: "keep warm copies, and take over when the writer dies",
    usage: &["standby [flags] -config PATH"],
    about: "Follows the replica of each database of the configuration, which has a lease section,\n\
            and waits. When the holder of the lease dies or hands over, it brings each copy to\n\
            the end of its history, fences the predecessor, and goes on as driftless replicate\n\
            does: with -exec it then starts the application.\n\
            \n\
            It does not take a lease that nobody has ever held: driftless replicate does.",
    flags: &[
        value("exec", "CMD", "Start the application once this host is the primary."),
        value(
            "addr",
            "HOST:PORT",
            "Serve /primary and /standby for load balancers, /metrics and /healthz. Without\nHOST: on all addresses.",
        ),
        value("state-dir", "PATH", "Where local records are kept. Without it: beside the first database."),
    ],
    positionals_max: 0,
    examples: &[(
        "On the second host.",
        "driftless standby -exec \"app --port 80\" -config /etc/driftless.yml",
    )],
    exits: &[0, 1, 2, 4, 5, 6],
};

pub(super) const HANDOFF: Command = Command {
    name: "handoff",
    summary: "hand the databases of this host over to the standby",
    usage: &["handoff [flags] [-config PATH]"],
    about: "Asks the primary on this host to end: its application is told to stop, what it\n\
            committed is replicated and proven, and the lease is given up. Waits until another\n\
            host is the primary.",
    flags: &[
        value("socket", "PATH", "The control socket of the process. Without it: the configuration's."),
        value(
            "timeout",
            "TIME",
            "How long to wait for the successor, in seconds or with a unit (default 60).",
        ),
        value("state-dir", "PATH", "The state directory of the process, if it was given one."),
        switch("json", "Print JSON."),
    ],
    positionals_max: 0,
    examples: &[("Before maintenance.", "driftless handoff -config /etc/driftless.yml")],
    exits: &[0, 1, 2],
};

pub(super) const LEASE: Command = Command {
    name: "lease",
    summary: "show who holds the lease",
    usage: &["lease [flags] [-config PATH]"],
    about: "Reads the lease from the store: which host holds it, in which epoch, since when, and\n\
            how far it is. Changes nothing.",
    flags: &[switch("json", "Print JSON.")],
    positionals_max: 0,
    examples: &[("Who is the primary?", "driftless lease -config /etc/driftless.yml")],
    exits: &[0, 1, 2],
};
