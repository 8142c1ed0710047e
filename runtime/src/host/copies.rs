//! The files of a database that becomes a copy, and of a copy that becomes the database: moved aside, named, and
//! removed, each so that a death in between loses nothing.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use driftless_adapters::fs::RealFs;
use driftless_adapters::pool::unblock;
use driftless_core::follow::Candidates;
use driftless_core::machine::{Exit, StateReply, StateRequest};

use super::databases::directory_of;
use crate::port::Blocking as _;
use crate::port::copy::position_path;
use crate::port::state::Records;
use crate::sqlite::probe::companion;

/// Moves a database out of the way, and says so.
pub(super) async fn keep_aside(database: PathBuf, epoch: u64) -> Result<(), Exit> {
    let name = database.display().to_string();
    let path = database.clone();
    let aside =
        unblock(move || move_aside(&path, epoch)).await.map_err(|error| disk_trouble(&database, &error))?;
    tracing::warn!(database = name, kept = %aside.display(), "what was not replicated is kept");
    Ok(())
}

fn disk_trouble(database: &Path, error: &io::Error) -> Exit {
    let error = format!("{}: {error}", database.display());
    Exit::Failed { error, hint: "see to the disk of the database".into() }
}

/// Says in the position file in which states this host may have left the database as its writer.
pub(super) async fn name_its_state(database: PathBuf, mut records: Records<RealFs>) -> Result<(), Exit> {
    let named = unblock({
        let database = database.clone();
        move || {
            let position = position_path(&database);
            if position.exists() || !database.exists() {
                return Ok(());
            }
            let known = match records.perform(&StateRequest::Load) {
                Ok(StateReply::Records(records)) => Candidates::of_journal(&records),
                _ => None,
            };
            // Without any it is in no state that is known, and is kept.
            write_whole(&position, &known.map_or_else(Vec::new, |known| known.encode()))
        }
    });
    named.await.map_err(|error| disk_trouble(&database, &error))
}

/// Removes the position files of copies, durably.
pub(super) async fn forget_positions(databases: Vec<PathBuf>) -> Result<(), Exit> {
    let removed = unblock(move || {
        let mut left = BTreeMap::new();
        for database in &databases {
            match fs::remove_file(position_path(database)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err((database.clone(), error)),
                Ok(()) => drop(left.insert(directory_of(database), database)),
            }
        }
        left.values().try_for_each(|it| sync_directory(it).map_err(|error| ((*it).clone(), error)))
    });
    removed.await.map_err(|(database, error)| disk_trouble(&database, &error))
}

/// Moves a database out of the way, with all that belongs to it.
fn move_aside(database: &Path, epoch: u64) -> io::Result<PathBuf> {
    let name = |n: u32| {
        let mut name = database.as_os_str().to_owned();
        name.push(format!(".unreplicated-{epoch}"));
        if n > 1 {
            name.push(format!("-{n}"));
        }
        PathBuf::from(name)
    };
    let aside = (1..).map(name).find(|aside| !aside.exists()).expect("numbers do not run out");
    // Under both names before it loses the first: a death in between must not part a database from its WAL,
    // which would go with whatever takes the place.
    for suffix in ["", "-wal", "-journal"] {
        match fs::hard_link(companion(database, suffix), companion(&aside, suffix)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    sync_directory(database)?;
    let names = ["", "-wal", "-journal", "-shm"].map(|suffix| companion(database, suffix));
    for left in names.into_iter().chain([position_path(database)]) {
        match fs::remove_file(left) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    sync_directory(database)?;
    Ok(aside)
}

fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    let mut file = File::create(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    sync_directory(path)
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(directory_of(path))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_moved_aside_keeps_its_wal_wherever_a_death_comes() {
        let directory = std::env::temp_dir().join(format!("driftless-aside-{}", std::process::id()));
        for left in [&["", "-wal"][..], &["-wal"], &["", "-wal", "-shm", "-txid"]] {
            let _ = fs::remove_dir_all(&directory);
            fs::create_dir_all(&directory).unwrap();
            let database = directory.join("a.db");
            // A try before this one came as far as both names, and perhaps further.
            let tried = directory.join("a.db.unreplicated-7");
            for suffix in ["", "-wal"] {
                fs::write(companion(&tried, suffix), format!("what{suffix}")).unwrap();
            }
            left.iter()
                .for_each(|suffix| fs::write(companion(&database, suffix), format!("what{suffix}")).unwrap());
            let aside = move_aside(&database, 7).unwrap();
            assert_eq!(aside, directory.join("a.db.unreplicated-7-2"));
            for kept in [tried.clone(), aside] {
                for suffix in ["", "-wal"].into_iter().filter(|suffix| kept == tried || left.contains(suffix))
                {
                    assert_eq!(
                        fs::read_to_string(companion(&kept, suffix)).unwrap(),
                        format!("what{suffix}")
                    );
                }
            }
            let names = fs::read_dir(&directory).unwrap().flatten();
            assert!(
                names
                    .into_iter()
                    .all(|it| it.file_name().to_string_lossy().starts_with("a.db.unreplicated-7"))
            );
        }
        fs::remove_dir_all(&directory).unwrap();
    }
}
