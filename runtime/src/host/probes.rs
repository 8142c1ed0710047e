//! The start-up probes: one for each server, told to every database that is replicated there.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use driftless_core::machine::{Event, OpIds, ReplicaId};
use driftless_core::probe::{Findings, Probe};
use smol::LocalExecutor;
use smol::channel::Sender;

use crate::driver::{self, Driver, Ports};
use crate::port::store::StorePort;

/// What is known of the servers of this process.
#[derive(Clone)]
pub(crate) struct Probes {
    executor: Rc<LocalExecutor<'static>>,
    servers: Rc<RefCell<BTreeMap<String, Server>>>,
}

/// A server, and who is to be told about it.
enum Server {
    Asked(Vec<Sender<Event>>),
    Known(Findings),
}

impl Probes {
    /// Nothing is known and nobody is asked.
    pub(crate) fn new(executor: Rc<LocalExecutor<'static>>) -> Probes {
        Probes { executor, servers: Rc::default() }
    }

    /// Tells `database` what the probe of its server finds, at once or once it is known. The first
    /// to ask has it probed, through its own replica.
    pub(crate) fn tell(&self, server: String, store: &Arc<StorePort>, database: Sender<Event>) {
        let mut servers = self.servers.borrow_mut();
        match servers.get_mut(&server) {
            Some(Server::Known(findings)) => {
                // The receiver lives as long as the database is followed.
                let _ = database.try_send(Event::StoreProbed(*findings));
            }
            Some(Server::Asked(listeners)) => listeners.push(database),
            None => {
                servers.insert(server.clone(), Server::Asked(vec![database]));
                self.executor.spawn(self.clone().probe(server, Arc::clone(store))).detach();
            }
        }
    }

    async fn probe(self, server: String, store: Arc<StorePort>) {
        let ports = Ports { store: Some(store), ..Ports::default() };
        let probe = Probe::new(OpIds::new(ReplicaId(0), driver::entropy()));
        let mut driver = Driver::new(probe, ports, Rc::clone(&self.executor));
        driver.run(|_, _| {}).await;
        let findings = driftless_core::machine::Machine::status(&driver.machine);
        tracing::info!(
            server,
            create_if_absent = findings.create_if_absent.word(),
            swap = findings.swap.word(),
            remove = findings.remove.word(),
            "the store was probed"
        );
        let asked = self.servers.borrow_mut().insert(server, Server::Known(findings));
        if let Some(Server::Asked(listeners)) = asked {
            for database in listeners {
                let _ = database.try_send(Event::StoreProbed(findings));
            }
        }
    }
}
