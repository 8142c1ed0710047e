//! Where an application and the replicator stand side by side on one database.

use std::path::PathBuf;

use driftless_tests::TempDir;
use driftless_tests::app::App;
use driftless_tests::sidecar::{Setup, Sidecar};

/// A database, its replica, and the directory of both.
pub struct Scene {
    /// Holds everything.
    pub dir: TempDir,
    /// The database; not there before an application makes it.
    pub database: PathBuf,
    /// The file replica.
    pub replica: PathBuf,
}

impl Scene {
    /// Nothing is there yet.
    pub fn new(name: &str) -> Scene {
        let dir = TempDir::new(name);
        let (database, replica) = (dir.join("app.db"), dir.join("replica"));
        Scene { dir, database, replica }
    }

    /// With an application whose connection `a` has prepared the database.
    pub fn with_app(name: &str) -> (Scene, App) {
        let scene = Scene::new(name);
        let mut app = App::start();
        app.prepare("a", &scene.database);
        (scene, app)
    }

    /// With an application that has committed one transaction, and a replicator that has come,
    /// replicated it and stopped.
    pub fn left(name: &str) -> (Scene, App) {
        let (scene, mut app) = Scene::with_app(name);
        app.tx("a");
        let sidecar = scene.sidecar();
        sidecar.caught_up();
        sidecar.stop();
        (scene, app)
    }

    /// How to start the replicator here.
    pub fn setup(&self) -> Setup {
        Setup::new(&self.database, &self.replica)
    }

    /// Starts it.
    pub fn sidecar(&self) -> Sidecar {
        self.setup().start()
    }
}
