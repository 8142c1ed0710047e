//! When an end that would otherwise be wrong is right, by what really befell the run.

/// What befell it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Excuses {
    /// The store has shown the current run something that is not there, or not as it is.
    lied: bool,
    /// The store has lost what it had acknowledged.
    vanished: bool,
    /// The machine went back to what it was once, and the replica did not.
    rolled_back: bool,
}

impl Excuses {
    /// A run begins.
    pub(super) fn started(&mut self) {
        self.lied = false;
    }

    /// The store lies to the current run.
    pub(super) fn lie(&mut self) {
        self.lied = true;
    }

    /// The store loses what it has acknowledged.
    pub(super) fn vanish(&mut self) {
        self.vanished = true;
    }

    /// The machine goes back to what it was once.
    pub(super) fn roll_back(&mut self) {
        self.rolled_back = true;
    }

    /// Whether a run may end fenced although nobody else writes there.
    pub(super) fn fence(&self) -> bool {
        self.lied || self.vanished || self.rolled_back
    }

    /// Whether a run may say that the replica is damaged.
    pub(super) fn corruption(&self) -> bool {
        self.lied
    }
}
