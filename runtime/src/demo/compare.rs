//! What the demo is judged by.

use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use crate::cli::error::CliError;

/// Moves everything from the WAL into the database file. Everybody else has left by now.
pub(super) fn settle(database: &Path) -> Result<(), CliError> {
    let failed = |error: rusqlite::Error| CliError::failed("cannot checkpoint the source").cause(error);
    let connection = Connection::open(database).map_err(failed)?;
    let busy: i64 =
        connection.query_row("pragma wal_checkpoint(truncate)", [], |row| row.get(0)).map_err(failed)?;
    if busy != 0 {
        return Err(CliError::failed("the source cannot be checkpointed: somebody still reads it"));
    }
    connection.close().map_err(|(_, error)| failed(error))
}

/// Compares two files page for page, and returns how many pages are equal: all of them.
pub(super) fn pages(source: &Path, restored: &Path, page_size: u32) -> Result<u64, CliError> {
    let open = |path: &Path| {
        let failed = |error| CliError::failed(format!("cannot read {}", path.display())).cause(error);
        let file = File::open(path).map_err(failed)?;
        Ok::<_, CliError>((file.metadata().map_err(failed)?.len(), BufReader::new(file)))
    };
    let ((source_len, mut source), (restored_len, mut restored)) = (open(source)?, open(restored)?);
    if source_len != restored_len {
        return Err(CliError::failed(format!(
            "the source has {source_len} bytes, the restored file {restored_len}"
        )));
    }
    let mut buffers = (vec![0; page_size as usize], vec![0; page_size as usize]);
    let count = source_len / u64::from(page_size.max(1));
    for page in 1..=count {
        let read = source.read_exact(&mut buffers.0).and_then(|()| restored.read_exact(&mut buffers.1));
        read.map_err(|error| CliError::failed("cannot read the files to compare").cause(error))?;
        if buffers.0 != buffers.1 {
            return Err(CliError::failed(format!(
                "page {page} of the restored database differs from the source"
            )));
        }
    }
    Ok(count)
}

/// The orders in a database: one for each transaction.
pub(super) fn orders(database: &Path) -> Result<u64, CliError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE;
    Connection::open_with_flags(database, flags)
        .and_then(|connection| connection.query_row("select count(*) from orders", [], |row| row.get(0)))
        .map(|count: i64| count.unsigned_abs())
        .map_err(|error| CliError::failed(format!("cannot read {}", database.display())).cause(error))
}

/// The files below a directory and their bytes.
pub(super) fn replica_size(directory: &Path) -> Result<(usize, u64), CliError> {
    let failed = |error| CliError::failed(format!("cannot list {}", directory.display())).cause(error);
    let (mut files, mut bytes) = (0, 0);
    for entry in fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let facts = entry.metadata().map_err(failed)?;
        if facts.is_dir() {
            let (more_files, more_bytes) = replica_size(&entry.path())?;
            (files, bytes) = (files + more_files, bytes + more_bytes);
        } else {
            (files, bytes) = (files + 1, bytes + facts.len());
        }
    }
    Ok((files, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_byte_is_found() {
        let directory = std::env::temp_dir().join(format!("driftless-compare-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let (source, restored) = (directory.join("a"), directory.join("b"));
        let mut bytes = vec![7; 4 * 512];
        fs::write(&source, &bytes).unwrap();
        fs::write(&restored, &bytes).unwrap();
        assert_eq!(pages(&source, &restored, 512), Ok(4));
        bytes[3 * 512] ^= 1;
        fs::write(&restored, &bytes).unwrap();
        assert!(pages(&source, &restored, 512).unwrap_err().error.starts_with("page 4 "));
        fs::write(&restored, &bytes[..512]).unwrap();
        assert!(pages(&source, &restored, 512).is_err());
        assert_eq!(replica_size(&directory), Ok((2, 4 * 512 + 512)));
        fs::remove_dir_all(directory).unwrap();
    }
}
