//! What writes under the lease: a model of the replicator, and its application.

use super::*;

impl World {
    /// What the writer of a host does next.
    pub(super) fn write_on(&mut self, host: usize) -> Result<(), Violation> {
        let it = &mut self.hosts[host];
        if !it.holds() || it.leaves {
            if it.lease.is_some() {
                it.writer = Writer::Idle;
            }
            return Ok(());
        }
        let status = it.lease.as_ref().expect("it holds one").status();
        match it.writer.clone() {
            Writer::Idle => {
                it.writer = Writer::Listing;
                self.ask(host, Ask::List);
            }
            Writer::Proving { proof, segment, first } if status.proves(proof) == Some(true) => {
                self.proven(host, &segment, first)?;
            }
            Writer::Activating if status.role == Role::Primary => {
                it.writer = Writer::Active;
                it.term = status.term;
                it.runs_application = true;
                let run = it.run;
                if !self.is_troubled() || self.now + SECOND > TROUBLED {
                    self.writes_since_heal.get_or_insert(self.now);
                }
                self.queue.push(self.now + 10 * MS, Entry::Commit(host, run));
            }
            Writer::Active if it.database.len() as u64 > it.replicated => self.put(host, false),
            _ => {}
        }
        Ok(())
    }

    pub(super) fn listed(&mut self, host: usize, chain: &[(u64, Segment)]) {
        let it = &mut self.hosts[host];
        if it.writer != Writer::Listing {
            return;
        }
        // A copy follows to the end; what this host alone had is kept aside, and in no history.
        let history: Vec<u64> =
            chain.iter().flat_map(|(_, segment)| segment.transactions.iter().copied()).collect();
        let continues = it.lease.as_ref().is_some_and(|lease| lease.status().continues);
        let own = continues && it.database.starts_with(&history);
        if !own {
            it.database = history.clone();
        }
        it.replicated = history.len() as u64;
        it.segments = chain.last().map_or(0, |(name, _)| *name);
        if mutant::on(Mutant::SuccessionUnfenced) {
            it.writer = Writer::Activating;
            let _ = self.tell(host, Event::Lease(LeaseEvent::Activate));
            return;
        }
        self.put(host, true);
    }

    pub(super) fn put(&mut self, host: usize, first: bool) {
        let it = &mut self.hosts[host];
        let transactions = if first { Vec::new() } else { it.database[it.replicated as usize..].to_vec() };
        let segment = Segment { epoch: it.epoch(), run: it.run, before: it.replicated, transactions };
        let name = it.segments + 1;
        it.writer = Writer::Putting { name, segment: segment.clone(), first };
        self.ask(host, Ask::Put(name, segment));
    }

    /// Whether a host awaits what became of this segment, or of whatever it puts under this name.
    pub(super) fn puts(&self, host: usize, name: u64, of: Option<&Segment>) -> bool {
        match &self.hosts[host].writer {
            Writer::Putting { name: awaited, segment, .. } => {
                *awaited == name && of.is_none_or(|it| it == segment)
            }
            _ => false,
        }
    }

    pub(super) fn put_ended(&mut self, host: usize, result: Result<(), StoreErrorKind>) {
        let Writer::Putting { name, segment, first } = self.hosts[host].writer.clone() else { return };
        match result {
            Ok(()) => self.prove(host, segment, first),
            Err(StoreErrorKind::AlreadyExists | StoreErrorKind::Ambiguous) => self.ask(host, Ask::Look(name)),
            Err(_) => self.ask(host, Ask::Put(name, segment)),
        }
    }

    pub(super) fn prove(&mut self, host: usize, segment: Segment, first: bool) {
        let it = &mut self.hosts[host];
        it.proofs += 1;
        let proof = it.proofs;
        it.writer = Writer::Proving { proof, segment, first };
        if mutant::on(Mutant::LeaseUnread) {
            let Writer::Proving { segment, .. } = self.hosts[host].writer.clone() else { return };
            let _ = self.proven(host, &segment, first);
            return;
        }
        let _ = self.tell(host, Event::Lease(LeaseEvent::Prove(proof)));
    }

    pub(super) fn found(&mut self, host: usize, found: Option<Segment>) {
        let Writer::Putting { name, segment, first } = self.hosts[host].writer.clone() else { return };
        match found {
            Some(found) if found == segment => self.prove(host, segment, first),
            None => self.ask(host, Ask::Put(name, segment)),
            // The predecessor was faster: followed, and tried again.
            Some(found) if first && found.epoch < segment.epoch => {
                self.summary.overtaken += 1;
                self.hosts[host].writer = Writer::Listing;
                self.ask(host, Ask::List);
            }
            Some(_) => self.ends(host, 0),
        }
    }

    pub(super) fn proven(&mut self, host: usize, segment: &Segment, first: bool) -> Result<(), Violation> {
        let it = &mut self.hosts[host];
        it.segments += 1;
        it.replicated += segment.transactions.len() as u64;
        if first {
            it.writer = Writer::Activating;
            return self.tell(host, Event::Lease(LeaseEvent::Activate));
        }
        it.writer = Writer::Active;
        self.acknowledged.extend(segment.transactions.iter().copied());
        match segment.transactions.iter().find(|it| !self.store.there.contains(it)) {
            Some(lost) => {
                Err(Violation::new("acknowledged", format!("{lost} is acknowledged and in no history")))
            }
            None => Ok(()),
        }
    }

    pub(super) fn commit(&mut self, host: usize) -> Result<(), Violation> {
        if !self.hosts[host].runs_application {
            return Ok(());
        }
        self.transactions += 1;
        self.summary.commits += 1;
        let (transaction, run) = (self.transactions, self.hosts[host].run);
        self.hosts[host].database.push(transaction);
        self.note(transaction);
        let wait = self.dice.wait("commit", "", transaction, 5_000, 2_000_000).as_nanos() as u64;
        self.queue.push(self.now + wait, Entry::Commit(host, run));
        if self.now >= TROUBLED {
            self.writes_since_heal.get_or_insert(self.now);
        }
        self.write_on(host)
    }
}
