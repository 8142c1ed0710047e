//! The lease of the process, as its machines and people see it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use driftless_core::lease::{LeaseEvent, LeaseStatus};
use driftless_core::machine::Event;
use smol::channel::Sender;

use crate::changes::Changes;

/// What the lease's machine last said, and a way to tell it something.
pub struct LeaseView {
    status: RefCell<LeaseStatus>,
    changes: Changes,
    machine: Sender<Event>,
    /// Proofs that were asked for.
    proofs: Cell<u64>,
}

impl LeaseView {
    /// Of the machine behind this sender.
    pub fn new(status: LeaseStatus, machine: Sender<Event>) -> Rc<LeaseView> {
        let (status, changes, proofs) = (RefCell::new(status), Changes::default(), Cell::new(0));
        Rc::new(LeaseView { status, changes, machine, proofs })
    }

    /// The machine stands like this now.
    pub fn show(&self, status: LeaseStatus) {
        *self.status.borrow_mut() = status;
        self.changes.tell();
    }

    /// A look at it.
    pub fn look<T>(&self, look: impl FnOnce(&LeaseStatus) -> T) -> T {
        look(&self.status.borrow())
    }

    /// Waits until it stands in some way.
    pub async fn until<T>(&self, look: impl Fn(&LeaseStatus) -> Option<T>) -> T {
        self.changes.until(|| look(&self.status.borrow())).await
    }

    /// Tells the machine something.
    pub fn tell(&self, event: Event) {
        // A machine that has ended needs none.
        let _ = self.machine.try_send(event);
    }

    /// Completes once a look that begins after this shows that the process holds the lease.
    ///
    /// # Errors
    /// Why it does not any more.
    pub async fn prove(&self) -> Result<(), String> {
        let number = self.proofs.get() + 1;
        self.proofs.set(number);
        self.tell(Event::Lease(LeaseEvent::Prove(number)));
        self.until(|status| {
            let lost = || status.lost.clone().unwrap_or_else(|| "the lease was given up".into());
            status.proves(number).map(|proven| if proven { Ok(()) } else { Err(lost()) })
        })
        .await
    }
}
