//! Looking at a database without SQLite: what `stat` says, and the first hundred bytes.
//!
//! SQLite must not open a file before someone has seen that it is in WAL mode, has no hot journal
//! and lies on a local disk: one SELECT would replay the journal or create files that the
//! application cannot write. Looking has a trap of its own. Closing *any* descriptor of the
//! database drops the POSIX locks that this process holds on it through SQLite, so the header may
//! be read only while no [`Link`](super::Link) is open here. That is enforced, not asked for:
//! [`read_header`] finds the inode through an `O_PATH` descriptor (closing one drops nothing),
//! claims it, and only then opens it. `stat` is always safe, and so is opening `-wal`, on which
//! SQLite takes no locks; `-shm` is never opened, for closing it would drop the pins.
//!
//! Locks of other processes, and ours on other files, are out of danger either way.

use core::fmt;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use driftless_core::machine::{self, SealRecord};
use driftless_core::tiers::Fingerprint;
use rustix::fs::{self, Access, AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

use super::registry::{Claim, FileId};

/// Bytes of the database header.
pub const HEADER_BYTES: usize = 100;
/// Bytes of the WAL header.
pub const WAL_HEADER_BYTES: usize = 32;

/// What is known of a database and its companions; nothing is judged.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SourceFacts {
    /// The path without symbolic links; as given when nothing is there.
    pub realpath: PathBuf,
    /// Whether the path as given led through a symbolic link.
    pub is_symlinked: bool,
    /// The database file; `None` when nothing is at the path.
    pub file: Option<FileFacts>,
    /// The first bytes; `None` when not asked for, or when the file is shorter.
    pub header: Option<[u8; HEADER_BYTES]>,
    /// The length of `-journal`, if there is one: a candidate for a hot journal.
    pub journal_len: Option<u64>,
    /// The `-wal` file.
    pub wal: Option<WalFacts>,
    /// The `-shm` file.
    pub shm: Option<FileFacts>,
    /// The kind of file system below the database, or below its directory if it is missing.
    pub filesystem: Filesystem,
    /// Whether we may write to the database file.
    pub can_write: bool,
    /// Whether we may create files beside it.
    pub can_write_directory: bool,
    /// Our effective user.
    pub euid: u32,
    /// Names this run of the kernel; `None` where the system has no such name.
    pub boot_id: Option<[u8; 16]>,
}

/// What `stat` says about a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FileFacts {
    /// Device and inode.
    pub id: FileId,
    /// Names of the file.
    pub nlink: u64,
    /// Bytes.
    pub size: u64,
    /// Last change of data or inode, nanoseconds since 1970.
    pub ctime_ns: i64,
    /// Last change of data, nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Type and permission bits.
    pub mode: u32,
}

/// What is known of a `-wal` file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WalFacts {
    /// What `stat` says.
    pub file: FileFacts,
    /// Its header; `None` when the file is shorter, unreadable or not a regular file.
    pub header: Option<[u8; WAL_HEADER_BYTES]>,
}

/// Where a file lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Filesystem {
    /// None of the kinds below; carries what `statfs` calls the type.
    Local {
        /// The magic number.
        magic: u64,
    },
    /// Shared or in user space: locks and shared memory are not what SQLite needs.
    Network {
        /// The kind in words, as in `nfs`.
        name: &'static str,
    },
    /// This system does not say.
    Unknown,
}

/// Why a database could not be looked at.
#[derive(Debug)]
pub enum ProbeError {
    /// This process has a link on the file; opening and closing it would drop the link's locks.
    Linked(FileId),
    /// The system refused.
    Io {
        /// Which path.
        path: PathBuf,
        /// Its answer.
        source: io::Error,
    },
}

impl ProbeError {
    fn io(path: &Path, errno: Errno) -> ProbeError {
        ProbeError::Io { path: path.to_path_buf(), source: errno.into() }
    }
}

impl fmt::Display for ProbeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ProbeError::Linked(id) => {
                write!(f, "device {} inode {} is in use by a link here", id.dev, id.ino)
            }
            ProbeError::Io { path, .. } => write!(f, "cannot examine {}", path.display()),
        }
    }
}

impl core::error::Error for ProbeError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            ProbeError::Linked(_) => None,
            ProbeError::Io { source, .. } => Some(source),
        }
    }
}

/// All facts, with the header. Not while this process has a link on the file.
///
/// # Errors
/// [`ProbeError::Linked`] while it has; otherwise as the system says.
pub fn probe(path: &Path) -> Result<SourceFacts, ProbeError> {
    let mut facts = stat_facts(path)?;
    facts.header = match facts.file {
        Some(_) => read_header(&facts.realpath)?,
        None => None,
    };
    Ok(facts)
}

/// All facts that need no descriptor on the database; safe at any time.
///
/// # Errors
/// As the system says, except that a missing file is a fact.
pub fn stat_facts(path: &Path) -> Result<SourceFacts, ProbeError> {
    let realpath = match std::fs::canonicalize(path) {
        Ok(real) => real,
        Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_path_buf(),
        Err(source) => return Err(ProbeError::Io { path: path.to_path_buf(), source }),
    };
    let file = stat_file(&realpath)?;
    let directory = realpath.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let wal_path = companion(&realpath, "-wal");
    let wal = stat_file(&wal_path)?.map(|file| WalFacts { file, header: wal_header(&wal_path) });
    Ok(SourceFacts {
        is_symlinked: is_symlinked(path, &realpath),
        header: None,
        journal_len: stat_file(&companion(&realpath, "-journal"))?.map(|file| file.size),
        wal,
        shm: stat_file(&companion(&realpath, "-shm"))?,
        filesystem: filesystem(if file.is_some() { &realpath } else { directory }),
        can_write: file.is_some() && may(&realpath, Access::WRITE_OK),
        can_write_directory: may(directory, Access::WRITE_OK | Access::EXEC_OK),
        euid: rustix::process::geteuid().as_raw(),
        boot_id: boot_id(),
        file,
        realpath,
    })
}

/// What a database and its `-wal` are; `None` when that cannot be told.
pub fn fingerprint(path: &Path) -> Option<Fingerprint> {
    let (seal, wal) = seal_facts(path)?;
    Some(Fingerprint::new(seal.device, seal.inode, seal.size, seal.ctime_ns, wal))
}

/// What a seal says of a database, as it is now, and of its `-wal`; `None` when that cannot be told.
pub fn seal_facts(path: &Path) -> Option<(SealRecord, Option<machine::WalFacts>)> {
    let realpath = std::fs::canonicalize(path).ok()?;
    let file = stat_file(&realpath).ok()??;
    let wal = stat_file(&companion(&realpath, "-wal")).ok()?;
    let wal =
        wal.map(|wal| machine::WalFacts { inode: wal.id.ino, size: wal.size, mtime_ns: wal.mtime_ns.into() });
    let seal = SealRecord {
        device: file.id.dev,
        inode: file.id.ino,
        size: file.size,
        ctime_ns: file.ctime_ns.into(),
        boot_id: name_of_boot(boot_id()),
    };
    Some((seal, wal))
}

/// What `stat` says about one path; `None` when nothing is there.
///
/// # Errors
/// As the system says.
pub fn stat_file(path: &Path) -> Result<Option<FileFacts>, ProbeError> {
    match fs::stat(path) {
        Ok(stat) => Ok(Some(file_facts(&stat))),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(errno) => Err(ProbeError::io(path, errno)),
    }
}

/// The database header; `None` when the file is shorter.
///
/// # Errors
/// [`ProbeError::Linked`] while this process has a link on the file; otherwise as the system says.
pub fn read_header(path: &Path) -> Result<Option<[u8; HEADER_BYTES]>, ProbeError> {
    let failed = |errno| ProbeError::io(path, errno);
    let (claim, file) = open_claimed(path)?;
    let mut header = [0; HEADER_BYTES];
    let read = read_at(&file, 0, &mut header).map_err(failed);
    // The descriptor goes first: a link may open the file as soon as the claim ends.
    drop(file);
    drop(claim);
    Ok((read? == HEADER_BYTES).then_some(header))
}

/// Whether the file begins as SQLite's do. Sixteen bytes are read, of regular files only.
///
/// # Errors
/// [`ProbeError::Linked`] while this process has a link on the file; otherwise as the system says.
pub fn is_database(path: &Path) -> Result<bool, ProbeError> {
    const MAGIC: [u8; 16] = *b"SQLite format 3\0";
    let failed = |errno| ProbeError::io(path, errno);
    let (claim, file) = open_claimed(path)?;
    let mut start = [0; MAGIC.len()];
    let read = read_at(&file, 0, &mut start).map_err(failed);
    drop(file);
    drop(claim);
    Ok(read? == MAGIC.len() && start == MAGIC)
}

/// Reads from the `-wal` of the database at `path`, by a descriptor of its own; safe at any
/// time. Fewer bytes than `len` when the file ends, none when there is no file.
///
/// # Errors
/// As the system says.
pub fn read_wal_frame(path: &Path, offset: u64, len: usize) -> Result<Vec<u8>, ProbeError> {
    let wal = companion(path, "-wal");
    let failed = |errno| ProbeError::io(&wal, errno);
    let file = match fs::open(&wal, READ_FLAGS, Mode::empty()) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(Vec::new()),
        Err(errno) => return Err(failed(errno)),
    };
    let mut bytes = vec![0; len];
    let there = read_at(&file, offset, &mut bytes).map_err(failed)?;
    bytes.truncate(there);
    Ok(bytes)
}

/// The path of `-wal`, `-shm` or `-journal`.
pub fn companion(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(suffix);
    PathBuf::from(name)
}

/// A boot as records name it; empty where it is not known.
pub fn name_of_boot(id: Option<[u8; 16]>) -> String {
    id.map_or(String::new(), |id| id.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Names this run of the kernel.
pub fn boot_id() -> Option<[u8; 16]> {
    static BOOT_ID: OnceLock<Option<[u8; 16]>> = OnceLock::new();
    *BOOT_ID.get_or_init(|| parse_uuid(&std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?))
}

/// `NONBLOCK` so that a pipe in the file's place cannot hold us.
const READ_FLAGS: OFlags =
    OFlags::RDONLY.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

#[cfg(target_os = "linux")]
fn open_claimed(path: &Path) -> Result<(Claim, OwnedFd), ProbeError> {
    let failed = |errno| ProbeError::io(path, errno);
    let place = fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(failed)?;
    let id = file_facts(&fs::fstat(&place).map_err(failed)?).id;
    let claim = Claim::take(id).ok_or(ProbeError::Linked(id))?;
    // Through the descriptor, not the path: the path may lead to a linked file by now.
    let again = format!("/proc/self/fd/{}", place.as_raw_fd());
    let file = fs::open(again, READ_FLAGS, Mode::empty()).map_err(failed)?;
    Ok((claim, file))
}

#[cfg(not(target_os = "linux"))]
fn open_claimed(path: &Path) -> Result<(Claim, OwnedFd), ProbeError> {
    let failed = |errno| ProbeError::io(path, errno);
    let id = file_facts(&fs::stat(path).map_err(failed)?).id;
    let claim = Claim::take(id).ok_or(ProbeError::Linked(id))?;
    let file = fs::open(path, READ_FLAGS, Mode::empty()).map_err(failed)?;
    Ok((claim, file))
}

fn read_at(file: &OwnedFd, offset: u64, buf: &mut [u8]) -> rustix::io::Result<usize> {
    let mut filled = 0;
    while filled < buf.len() {
        match rustix::io::pread(file, &mut buf[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(filled)
}

fn wal_header(wal: &Path) -> Option<[u8; WAL_HEADER_BYTES]> {
    let file = fs::open(wal, READ_FLAGS, Mode::empty()).ok()?;
    let mut header = [0; WAL_HEADER_BYTES];
    (read_at(&file, 0, &mut header).ok()? == WAL_HEADER_BYTES).then_some(header)
}

fn is_symlinked(path: &Path, realpath: &Path) -> bool {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    absolute.as_os_str().as_bytes() != realpath.as_os_str().as_bytes()
}

fn may(path: &Path, access: Access) -> bool {
    fs::accessat(CWD, path, access, AtFlags::EACCESS).is_ok()
}

#[expect(clippy::unnecessary_cast, reason = "the fields' types differ between systems")]
fn file_facts(stat: &fs::Stat) -> FileFacts {
    let ns = |seconds: i64, nanos: i64| seconds.saturating_mul(1_000_000_000).saturating_add(nanos);
    FileFacts {
        id: FileId { dev: stat.st_dev as u64, ino: stat.st_ino as u64 },
        nlink: stat.st_nlink as u64,
        size: stat.st_size as u64,
        ctime_ns: ns(stat.st_ctime as i64, stat.st_ctime_nsec as i64),
        mtime_ns: ns(stat.st_mtime as i64, stat.st_mtime_nsec as i64),
        uid: stat.st_uid as u32,
        gid: stat.st_gid as u32,
        mode: stat.st_mode as u32,
    }
}

/// Whether a file, and not a directory above it, is where something is mounted: a single file given
/// to a container. `false` where the kernel does not say.
#[cfg(target_os = "linux")]
pub fn is_mount_point(path: &Path) -> bool {
    use rustix::fs::{StatxAttributes, StatxFlags};
    fs::statx(CWD, path, AtFlags::empty(), StatxFlags::empty())
        .is_ok_and(|facts| facts.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

/// Whether a file, and not a directory above it, is where something is mounted.
#[cfg(not(target_os = "linux"))]
pub fn is_mount_point(_path: &Path) -> bool {
    false
}

/// What `statfs` says lies below `path`.
#[cfg(target_os = "linux")]
pub fn filesystem(path: &Path) -> Filesystem {
    // The numbers of statfs(2).
    const NETWORK: [(u64, &str); 15] = [
        (0x6969, "nfs"),
        (0x517b, "smb"),
        (0xff53_4d42, "cifs"),
        (0xfe53_4d42, "smb2"),
        (0x0102_1997, "9p"),
        (0x6573_5546, "fuse"),
        (0x5346_414f, "afs"),
        (0x6b41_4653, "afs"),
        (0x00c3_6400, "ceph"),
        (0x7375_7245, "coda"),
        (0x0bd0_0bd0, "lustre"),
        (0x7461_636f, "ocfs2"),
        (0x0116_1970, "gfs2"),
        (0x786f_4256, "vboxsf"),
        (0x564c, "ncp"),
    ];
    let Ok(statfs) = fs::statfs(path) else { return Filesystem::Unknown };
    // The type is 32 bits wide, sign-extended on some machines.
    let magic = statfs.f_type as u64 & 0xffff_ffff;
    match NETWORK.iter().find(|(number, _)| *number == magic) {
        Some((_, name)) => Filesystem::Network { name },
        None => Filesystem::Local { magic },
    }
}

/// What `statfs` says lies below `path`.
#[cfg(not(target_os = "linux"))]
pub fn filesystem(_path: &Path) -> Filesystem {
    Filesystem::Unknown
}

fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let digits: Vec<u8> = text.trim().bytes().filter(|b| *b != b'-').collect();
    let mut id = [0; 16];
    if digits.len() != 32 {
        return None;
    }
    for (byte, pair) in id.iter_mut().zip(digits.chunks(2)) {
        *byte = u8::from_str_radix(core::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(id)
}
