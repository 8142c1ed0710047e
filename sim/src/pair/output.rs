//! The file that a follower's first restore builds, on a simulated disk.

use driftless_core::machine::{Chunk, OutputError, OutputRequest};

use crate::disk::Disk;
use crate::ring0::app::PATH;

const BUILDING: &str = "/a.db.restoring";

/// Carries out a request.
///
/// # Errors
/// What went wrong, for people.
pub(super) fn perform(disk: &Disk, request: &OutputRequest) -> Result<Chunk, OutputError> {
    let failed = |error: std::io::Error| OutputError { exists: false, text: error.to_string() };
    let built = || disk.open(BUILDING).map_err(failed);
    match request {
        OutputRequest::Create { keep } => {
            let file = disk.create(BUILDING).map_err(failed)?;
            if !keep {
                file.set_len(0).map_err(failed)?;
            }
        }
        OutputRequest::Write(extents) => {
            let file = built()?;
            extents.iter().try_for_each(|(at, bytes)| file.write_all_at(bytes, *at)).map_err(failed)?;
        }
        OutputRequest::SetLen(len) => built()?.set_len(*len).map_err(failed)?,
        OutputRequest::Sync => built()?.sync().map_err(failed)?,
        OutputRequest::Publish { replace: false } => {
            disk.rename_noreplace(BUILDING, PATH)
                .map_err(|error| OutputError { exists: disk.exists(PATH), ..failed(error) })?;
            disk.sync_dir("/").map_err(failed)?;
        }
        OutputRequest::Publish { replace: true } => {
            for suffix in ["-wal", "-shm", "-journal"] {
                let _ = disk.unlink(&format!("{PATH}{suffix}"));
            }
            disk.rename(BUILDING, PATH).map_err(failed)?;
            disk.sync_dir("/").map_err(failed)?;
        }
        OutputRequest::Discard => {
            let _ = disk.unlink(BUILDING);
        }
        OutputRequest::ReadBuilt { offset, len } => return Ok(part(disk, BUILDING, *offset, *len)),
        OutputRequest::ReadTarget { offset, len } => {
            let beside = |suffix: &str| disk.stat(&format!("{PATH}{suffix}")).is_ok_and(|it| it.size > 0);
            if !beside("-wal") && !beside("-journal") {
                return Ok(part(disk, PATH, *offset, *len));
            }
        }
    }
    Ok(Chunk::default())
}

fn part(disk: &Disk, path: &str, offset: u64, len: u32) -> Chunk {
    let bytes = disk.contents(path).unwrap_or_default();
    let start = bytes.len().min(offset as usize);
    Chunk::from(bytes[start..bytes.len().min(start + len as usize)].to_vec())
}
