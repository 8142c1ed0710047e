//! A small database and a replica of it with a known history, for tests that need any.

use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use crate::db::open_wal;
use crate::{TempDir, dump_digest, run};

/// A database, its replica, and a configuration that names both.
#[derive(Debug)]
pub struct Scene {
    /// Holds everything, and goes last.
    pub dir: TempDir,
    /// The database, in WAL mode, closed.
    pub db: PathBuf,
    /// The file replica.
    pub replica: PathBuf,
    /// The configuration file.
    pub config: PathBuf,
    /// What the database's content was at each TXID, first TXID first.
    pub digests: Vec<String>,
}

impl Scene {
    /// A database that is replicated nowhere yet.
    pub fn fresh(name: &str) -> Scene {
        let dir = TempDir::new(name);
        let (db, replica, config) = (dir.join("app.db"), dir.join("replica"), dir.join("driftless.yml"));
        let text = format!(
            "shutdown-sync-timeout: 1s\ndbs:\n  - path: {}\n    replica:\n      type: file\n      path: {}\n",
            db.display(),
            replica.display()
        );
        fs::write(&config, text).expect("our own directory");
        let mark = name.replace('\'', "");
        open_wal(&db)
            .execute_batch(&format!(
                "create table t(id integer primary key, x); insert into t(x) values ('{mark}')"
            ))
            .expect("a fresh database");
        Scene { dir, db, replica, config, digests: Vec::new() }
    }

    /// A database with `txids` captures on its replica, each a level-0 file.
    pub fn replicated(name: &str, txids: u64) -> Scene {
        let mut scene = Scene::fresh(name);
        for txid in 1..=txids {
            scene.write(txid);
            scene.replicate_once();
        }
        scene
    }

    /// Adds rows, enough for some pages, and lets go of the database.
    pub fn write(&self, seed: u64) {
        let app = Connection::open(&self.db).expect("the application opens its database");
        app.execute_batch(&format!(
            "with recursive n(i) as (select 1 union all select i + 1 from n where i < 40)
             insert into t(x) select 'row ' || i || ' of {seed} ' || hex(randomblob(150)) from n"
        ))
        .expect("the application writes");
    }

    /// Replicates what is there, and notes what it is.
    #[track_caller]
    pub fn replicate_once(&mut self) {
        run(["replicate".as_ref(), "-once".as_ref(), "-config".as_ref(), self.config.as_os_str()])
            .expect_ok();
        self.digests.push(dump_digest(&self.db));
    }

    /// The path of the level-0 file of one TXID.
    pub fn level0(&self, txid: u64) -> PathBuf {
        self.replica.join(format!("ltx/0/{txid:016x}-{txid:016x}.ltx"))
    }

    /// The name of that file as errors have it.
    pub fn object(txid: u64) -> String {
        format!("0/{txid:016x}-{txid:016x}.ltx")
    }
}

/// Inverts one byte of a file.
#[track_caller]
pub fn flip(file: &Path, at: usize) {
    let mut bytes = fs::read(file).unwrap_or_else(|error| panic!("cannot read {}: {error}", file.display()));
    bytes[at] ^= 0xff;
    fs::write(file, bytes).expect("just read");
}

/// The names of what is in a directory, in order.
#[track_caller]
pub fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap_or_else(|error| panic!("cannot list {}: {error}", dir.display()));
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
