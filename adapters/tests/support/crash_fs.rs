//! A filesystem in memory that forgets what was not synced.
//!
//! Fault model: until `sync`, each sector of each write to a file survives a power cut or not, on
//! its own; until `sync_dir`, each change of names in a directory (a creation, a removal, a rename
//! with both its halves) survives or not, on its own and out of order; a directory whose name is
//! lost takes everything below it along. Syncing a file says nothing about its name. A killed
//! process loses nothing. For tests of tests, either sync can be made to lie.

use std::collections::BTreeMap;
use std::path::{Component, Path};
use std::sync::{Arc, Mutex, MutexGuard};

use driftless_adapters::fs::{DirEntry, FileFacts, FileKind, Fs, FsError, FsErrorKind};
use driftless_core::ids::Wall;

const SECTOR: usize = 512;

type Names = BTreeMap<String, usize>;

#[derive(Clone)]
enum Inode {
    File {
        now: Vec<u8>,
        durable: Vec<u8>,
        pending: Vec<(usize, Vec<u8>)>,
    },
    /// Each pending change is a set of names to give or take away, atomic in itself.
    Dir {
        now: Names,
        durable: Names,
        pending: Vec<Vec<(String, Option<usize>)>>,
    },
}

#[derive(Clone, Default)]
struct Disk {
    inodes: Vec<Inode>,
    sync_lies: bool,
    sync_dir_lies: bool,
}

/// Clones share the disk.
#[derive(Clone)]
pub struct CrashFs(Arc<Mutex<Disk>>);

fn dir() -> Inode {
    Inode::Dir { now: Names::new(), durable: Names::new(), pending: Vec::new() }
}

impl CrashFs {
    pub fn new() -> CrashFs {
        CrashFs(Arc::new(Mutex::new(Disk { inodes: vec![dir()], ..Disk::default() })))
    }

    pub fn with_lying_sync(self) -> CrashFs {
        self.disk().sync_lies = true;
        self
    }

    pub fn with_lying_sync_dir(self) -> CrashFs {
        self.disk().sync_dir_lies = true;
        self
    }

    /// The disk as another power cut would leave it; this one stays as it is.
    pub fn after_power_cut(&self, seed: u64) -> CrashFs {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut coin = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state >> 40 & 1 == 1
        };
        let mut disk = self.disk().clone();
        for inode in &mut disk.inodes {
            match inode {
                Inode::File { now, durable, pending } => {
                    for (offset, data) in pending.drain(..) {
                        for (n, sector) in data.chunks(SECTOR).enumerate() {
                            if coin() {
                                put_bytes(durable, offset + n * SECTOR, sector);
                            }
                        }
                    }
                    *now = durable.clone();
                }
                Inode::Dir { now, durable, pending } => {
                    for change in pending.drain(..) {
                        if coin() {
                            apply(durable, &change);
                        }
                    }
                    *now = durable.clone();
                }
            }
        }
        CrashFs(Arc::new(Mutex::new(disk)))
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap()
    }
}

fn put_bytes(file: &mut Vec<u8>, offset: usize, data: &[u8]) {
    if file.len() < offset + data.len() {
        file.resize(offset + data.len(), 0);
    }
    file[offset..offset + data.len()].copy_from_slice(data);
}

fn apply(names: &mut Names, change: &[(String, Option<usize>)]) {
    for (name, inode) in change {
        match inode {
            Some(inode) => names.insert(name.clone(), *inode),
            None => names.remove(name),
        };
    }
}

fn rename(disk: &mut Disk, from: &Path, to: &Path) -> Result<(), FsError> {
    let inode = disk.find(from)?;
    let ((from_dir, from_name), (to_dir, to_name)) = (disk.split(from)?, disk.split(to)?);
    assert_eq!(from_dir, to_dir, "renames across directories are not modelled");
    disk.change(to_dir, vec![(from_name, None), (to_name, Some(inode))]);
    Ok(())
}

fn error<T>(kind: FsErrorKind, path: &Path) -> Result<T, FsError> {
    Err(FsError::new(kind, path, ""))
}

impl Disk {
    fn names(&self, inode: usize) -> Option<&Names> {
        match &self.inodes[inode] {
            Inode::Dir { now, .. } => Some(now),
            Inode::File { .. } => None,
        }
    }

    fn find(&self, path: &Path) -> Result<usize, FsError> {
        let mut at = 0;
        for component in path.components() {
            if let Component::Normal(name) = component {
                let Some(names) = self.names(at) else { return error(FsErrorKind::BadPath, path) };
                match names.get(name.to_str().unwrap()) {
                    Some(&next) => at = next,
                    None => return error(FsErrorKind::NotFound, path),
                }
            }
        }
        Ok(at)
    }

    fn split(&self, path: &Path) -> Result<(usize, String), FsError> {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let parent = self.find(path.parent().unwrap())?;
        if self.names(parent).is_none() { error(FsErrorKind::BadPath, path) } else { Ok((parent, name)) }
    }

    fn change(&mut self, parent: usize, change: Vec<(String, Option<usize>)>) {
        let Inode::Dir { now, pending, .. } = &mut self.inodes[parent] else {
            panic!("changes happen in directories")
        };
        apply(now, &change);
        pending.push(change);
    }

    fn create(&mut self, path: &Path, inode: Inode) -> Result<usize, FsError> {
        let (parent, name) = self.split(path)?;
        if self.find(path).is_ok() {
            return error(FsErrorKind::Exists, path);
        }
        let number = self.inodes.len();
        self.inodes.push(inode);
        self.change(parent, vec![(name, Some(number))]);
        Ok(number)
    }
}

impl Fs for CrashFs {
    type File = usize;

    fn open_read(&self, path: &Path) -> Result<usize, FsError> {
        let disk = self.disk();
        let inode = disk.find(path)?;
        if disk.names(inode).is_some() { error(FsErrorKind::BadPath, path) } else { Ok(inode) }
    }

    fn create_new(&self, path: &Path) -> Result<usize, FsError> {
        self.disk().create(path, Inode::File { now: Vec::new(), durable: Vec::new(), pending: Vec::new() })
    }

    fn open_write_or_create(&self, path: &Path) -> Result<usize, FsError> {
        self.open_read(path).or_else(|_| self.create_new(path))
    }

    fn open_append_or_create(&self, path: &Path) -> Result<usize, FsError> {
        self.open_write_or_create(path)
    }

    fn read_at(&self, file: &usize, buf: &mut [u8], offset: u64) -> Result<usize, FsError> {
        let disk = self.disk();
        let Inode::File { now, .. } = &disk.inodes[*file] else {
            return error(FsErrorKind::BadPath, Path::new("file"));
        };
        let from = now.len().min(offset as usize);
        let n = buf.len().min(now.len() - from);
        buf[..n].copy_from_slice(&now[from..from + n]);
        Ok(n)
    }

    fn write_at(&self, file: &usize, data: &[u8], offset: u64) -> Result<(), FsError> {
        let mut disk = self.disk();
        let Inode::File { now, pending, .. } = &mut disk.inodes[*file] else {
            panic!("a directory is not written to")
        };
        put_bytes(now, offset as usize, data);
        pending.push((offset as usize, data.to_vec()));
        Ok(())
    }

    fn append(&self, file: &usize, data: &[u8]) -> Result<(), FsError> {
        let len = self.len(file)?;
        self.write_at(file, data, len)
    }

    fn set_len(&self, _file: &usize, _bytes: u64) -> Result<(), FsError> {
        error(FsErrorKind::Unsupported, Path::new("file"))
    }

    fn len(&self, file: &usize) -> Result<u64, FsError> {
        match &self.disk().inodes[*file] {
            Inode::File { now, .. } => Ok(now.len() as u64),
            Inode::Dir { .. } => error(FsErrorKind::BadPath, Path::new("file")),
        }
    }

    fn sync(&self, file: &usize) -> Result<(), FsError> {
        let mut disk = self.disk();
        let lies = disk.sync_lies;
        if let Inode::File { now, durable, pending } = &mut disk.inodes[*file]
            && !lies
        {
            pending.clear();
            *durable = now.clone();
        }
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> Result<(), FsError> {
        let mut disk = self.disk();
        let (inode, lies) = (disk.find(path)?, disk.sync_dir_lies);
        let Inode::Dir { now, durable, pending } = &mut disk.inodes[inode] else {
            return error(FsErrorKind::BadPath, path);
        };
        if !lies {
            pending.clear();
            *durable = now.clone();
        }
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), FsError> {
        rename(&mut self.disk(), from, to)
    }

    /// Looks and renames under one lock, as the kernel does: looking first and locking anew let two
    /// racers win.
    fn rename_noreplace(&self, from: &Path, to: &Path) -> Result<(), FsError> {
        let mut disk = self.disk();
        if disk.find(to).is_ok() { error(FsErrorKind::Exists, to) } else { rename(&mut disk, from, to) }
    }

    fn hard_link(&self, _existing: &Path, new: &Path) -> Result<(), FsError> {
        error(FsErrorKind::Unsupported, new)
    }

    fn remove(&self, path: &Path) -> Result<(), FsError> {
        let mut disk = self.disk();
        let inode = disk.find(path)?;
        if disk.names(inode).is_some() {
            return error(FsErrorKind::BadPath, path);
        }
        let (parent, name) = disk.split(path)?;
        disk.change(parent, vec![(name, None)]);
        Ok(())
    }

    fn create_dir(&self, path: &Path) -> Result<(), FsError> {
        self.disk().create(path, dir()).map(drop)
    }

    fn list_dir(&self, path: &Path) -> Result<Vec<DirEntry>, FsError> {
        let disk = self.disk();
        let Some(names) = disk.names(disk.find(path)?) else { return error(FsErrorKind::BadPath, path) };
        let entry = |(name, inode): (&String, &usize)| {
            let kind = if disk.names(*inode).is_some() { FileKind::Dir } else { FileKind::File };
            DirEntry { name: name.into(), kind }
        };
        Ok(names.iter().map(entry).collect())
    }

    fn stat(&self, path: &Path) -> Result<FileFacts, FsError> {
        let disk = self.disk();
        let inode = disk.find(path)?;
        let (kind, len) = match &disk.inodes[inode] {
            Inode::File { now, .. } => (FileKind::File, now.len() as u64),
            Inode::Dir { .. } => (FileKind::Dir, 0),
        };
        Ok(FileFacts { kind, len, modified: Wall(0), dev: 1, ino: inode as u64 })
    }
}
