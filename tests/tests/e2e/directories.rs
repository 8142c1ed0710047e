//! Directories of databases: `dir`, `pattern`, `recursive` and `watch` of the configuration.

mod bucket;
mod entries;
mod live;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use driftless_tests::command::{Ran, finish};
use driftless_tests::db::open_wal;
use driftless_tests::{Daemon, PATIENCE, TempDir, daemon, driftless, dump_digest, litestream};
use rusqlite::Connection;

/// A directory `srv` of databases, whose replicas are below `backup`.
struct Place {
    dir: TempDir,
    config: PathBuf,
}

impl Place {
    /// Writes a configuration with further keys for the directory.
    fn new(name: &str, keys: &str) -> Place {
        let dir = TempDir::new(name);
        fs::create_dir(dir.join("srv")).unwrap();
        let place = Place { config: dir.join("litestream.yml"), dir };
        place.configure(keys);
        place
    }

    fn configure(&self, keys: &str) {
        let (srv, backup) = (self.dir.join("srv"), self.dir.join("backup"));
        let text = format!(
            "dbs:\n  - dir: {}\n    replica: {{type: file, path: {}, sync-interval: 100ms}}\n    {keys}\n",
            srv.display(),
            backup.display()
        );
        fs::write(&self.config, text).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join("srv").join(name)
    }

    fn replica(&self, name: &str) -> PathBuf {
        self.dir.join("backup").join(name)
    }

    /// A database with a row that is its own.
    fn database(&self, name: &str) -> Connection {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let connection = open_wal(&path);
        connection.execute_batch("create table if not exists t(x)").unwrap();
        connection.execute("insert into t values (?)", [name]).unwrap();
        connection
    }

    fn start(&self) -> Daemon {
        Daemon::replicate_with(&self.dir.join("process"), &["-config".as_ref(), self.config.as_os_str()])
    }

    #[track_caller]
    fn run(&self, line: &str) -> Ran {
        let mut command = Command::new(driftless());
        for (n, word) in line.split_whitespace().enumerate() {
            match word.strip_prefix('@') {
                Some(name) => command.arg(self.path(name)),
                None => command.arg(word),
            };
            if n == 0 {
                command.arg("-config").arg(&self.config);
            }
        }
        finish(command.current_dir(self.dir.path()))
    }

    /// Waits until a database has a segment, and says how long that took.
    #[track_caller]
    fn wait_for(&self, daemon: &mut Daemon, name: &str) -> Duration {
        let begun = Instant::now();
        daemon.wait_until(name, PATIENCE, || !daemon::level0(&self.replica(name)).is_empty());
        begun.elapsed()
    }

    fn digest(&self, name: &str) -> String {
        dump_digest(&self.path(name))
    }
}

/// Restores by Litestream, which finds no database of a directory by its path.
#[track_caller]
fn restore_by_litestream(replica: &Path, output: &Path) {
    let mut command = Command::new(litestream());
    command.arg("restore").arg("-o").arg(output).arg(format!("file://{}", replica.display()));
    finish(&mut command).expect_ok();
}
