//! What an application knows of its database, so that it can be set back with its machine.

use super::App;

/// What was acknowledged, what is in doubt, which copies there are.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Memory {
    acknowledged: i64,
    in_doubt: Vec<i64>,
    kept: Option<i64>,
    anything_goes: bool,
}

impl App {
    /// What it knows now.
    pub fn memory(&self) -> Memory {
        Memory {
            acknowledged: self.acknowledged,
            in_doubt: self.in_doubt.clone(),
            kept: self.kept,
            anything_goes: self.anything_goes,
        }
    }

    /// Its machine has become another, on which it knows this.
    pub fn recall(&mut self, memory: &Memory) {
        self.forget_connections();
        self.acknowledged = memory.acknowledged;
        self.in_doubt = memory.in_doubt.clone();
        self.unsynced = Vec::new();
        self.kept = memory.kept;
        self.anything_goes = memory.anything_goes;
    }
}
