//! Faults of the filesystems under a replica and under the local state, made by honest means.
//!
//! | fault | means |
//! |---|---|
//! | no space, read-only | a small tmpfs, filled and freed, or mounted again |
//! | two paths | a bind mount |
//! | hangs | an ext4 image on a loop device, frozen and thawed: each write blocks in the kernel |
//! | away | the directory renamed aside, a file in its place |
//! | late, slow, fails, loses an answer | a library before libc that delays or fails `fsync`, and delays `pwrite`, by suffix |
//!
//! Mounts need root, which CI has; where they are refused the test fails and says why.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::app::compile_shim;

/// Delays or fails `fsync`, or delays `pwrite`, of files whose path ends as the control file says:
/// lines of a suffix, an action (`exit`, `eio`, `late`, or `slow` for `pwrite`) and a number (how
/// often; for `late` and `slow`, milliseconds).
const FSYNC_SHIM: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static __thread char suffix[256], action[16];
static __thread long number;
static int find(int fd) {
    const char *control = getenv("FSYNC_FAULTS");
    char link[64], path[1024];
    int n, end, hit = 0, saved = errno;
    FILE *f;
    if (!control || !(f = fopen(control, "r"))) { errno = saved; return 0; }
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    end = readlink(link, path, sizeof path - 1);
    if (end > 0) {
        path[end] = 0;
        while (!hit && fscanf(f, "%255s %15s %ld", suffix, action, &number) == 3) {
            n = strlen(suffix);
            hit = end >= n && !strcmp(path + end - n, suffix);
        }
    }
    fclose(f);
    errno = saved;
    return hit;
}
static int fault(int fd) {
    const char *control = getenv("FSYNC_FAULTS");
    FILE *f;
    if (!find(fd) || !strcmp(action, "slow")) return 0;
    if (!strcmp(action, "late")) { usleep(number * 1000); return 0; }
    if (number <= 1) unlink(control);
    else if ((f = fopen(control, "w"))) { fprintf(f, "%s %s %ld\n", suffix, action, number - 1); fclose(f); }
    if (!strcmp(action, "exit")) _exit(9);
    errno = EIO;
    return -1;
}
ssize_t pwrite64(int fd, const void *bytes, size_t len, off64_t at) {
    static ssize_t (*real)(int, const void *, size_t, off64_t);
    if (find(fd) && !strcmp(action, "slow")) usleep(number * 1000);
    if (!real) real = dlsym(RTLD_NEXT, "pwrite64");
    return real(fd, bytes, len, at);
}
int fsync(int fd) {
    static int (*real)(int);
    if (fault(fd)) return -1;
    if (!real) real = dlsym(RTLD_NEXT, "fsync");
    return real(fd);
}
int fdatasync(int fd) {
    static int (*real)(int);
    if (fault(fd)) return -1;
    if (!real) real = dlsym(RTLD_NEXT, "fdatasync");
    return real(fd);
}
"#;

/// The name of the variable that names the control file.
const CONTROL_VARIABLE: &str = "FSYNC_FAULTS";

/// Faults of `fsync` in a process that is started with [`FsyncFaults::variables`].
pub struct FsyncFaults {
    library: PathBuf,
    control: PathBuf,
}

impl FsyncFaults {
    /// Compiles the library in `directory`; nothing fails yet.
    pub fn new(directory: &Path) -> FsyncFaults {
        let library = compile_shim(directory, "fsync-faults", FSYNC_SHIM);
        FsyncFaults { library, control: directory.join("fsync-faults.control") }
    }

    /// The library, for `LD_PRELOAD`.
    pub fn library(&self) -> &Path {
        &self.library
    }

    /// What the process's environment must hold beside `LD_PRELOAD`.
    pub fn variable(&self) -> (&'static str, &Path) {
        (CONTROL_VARIABLE, &self.control)
    }

    /// The whole environment.
    pub fn variables(&self) -> [(&'static str, PathBuf); 2] {
        [("LD_PRELOAD", self.library.clone()), (CONTROL_VARIABLE, self.control.clone())]
    }

    /// Syncing a path that ends in `suffix` ends the process.
    pub fn exit_at(&self, suffix: &str) {
        self.set(&format!("{suffix} exit 1\n"));
    }

    /// The next `times` syncs of a path that ends in `suffix` fail with EIO.
    pub fn fail(&self, suffix: &str, times: u32) {
        self.set(&format!("{suffix} eio {times}\n"));
    }

    /// Each sync of a path that ends in `suffix` takes this much longer.
    pub fn delay(&self, suffix: &str, ms: u32) {
        self.set(&format!("{suffix} late {ms}\n"));
    }

    /// Each write to a path that ends in `suffix` takes this much longer.
    pub fn slow(&self, suffix: &str, ms: u32) {
        self.set(&format!("{suffix} slow {ms}\n"));
    }

    /// Nothing fails any more.
    pub fn heal(&self) {
        // A fault that has been used up removes the file itself.
        let _ = fs::remove_file(&self.control);
    }

    /// Whether all faults that were asked for have happened.
    pub fn used_up(&self) -> bool {
        !self.control.exists()
    }

    fn set(&self, text: &str) {
        // In one step: the process may read it at any moment.
        let beside = self.control.with_extension("new");
        fs::write(&beside, text)
            .and_then(|()| fs::rename(&beside, &self.control))
            .expect("the test's directory");
    }
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{program} does not start: {error}"));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?} failed (this test runs as root): {error}");
}

fn text(path: &Path) -> &str {
    path.to_str().expect("test paths are plain")
}

/// A small filesystem in memory.
pub struct Tmpfs {
    path: PathBuf,
}

impl Tmpfs {
    /// Mounts one of `kib` KiB on `path`, which is made.
    pub fn mount(path: &Path, kib: u32) -> Tmpfs {
        fs::create_dir_all(path).expect("the test's directory can be written");
        run("mount", &["-t", "tmpfs", "-o", &format!("size={kib}k,mode=755"), "tmpfs", text(path)]);
        Tmpfs { path: path.to_path_buf() }
    }

    /// Takes all space that is left.
    pub fn fill(&self) {
        use std::io::Write as _;
        let mut file = fs::File::create(self.path.join("ballast")).expect("an inode is left");
        while file.write(&[7; 4096]).is_ok_and(|n| n > 0) {}
    }

    /// Gives it back.
    pub fn free(&self) {
        fs::remove_file(self.path.join("ballast")).expect("filled before");
    }

    /// Takes away, or gives back, the right to write. Nobody may have a file open for writing.
    pub fn remount(&self, read_only: bool) {
        let mode = if read_only { "remount,ro" } else { "remount,rw" };
        run("mount", &["-o", mode, text(&self.path)]);
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // Lazily: a process under test may still be there when a test panics.
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}

/// A second path to a directory, or to a file.
pub struct Bind {
    path: PathBuf,
}

impl Bind {
    /// Mounts `from` on `path`, which is there.
    pub fn mount(from: &Path, path: &Path) -> Bind {
        run("mount", &["--bind", text(from), text(path)]);
        Bind { path: path.to_path_buf() }
    }
}

impl Drop for Bind {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}

/// A filesystem that can be frozen: writes to it then hang until it is thawed.
pub struct Volume {
    path: PathBuf,
    frozen: bool,
}

impl Volume {
    /// Makes an ext4 image of `mib` MiB in `directory` and mounts it on `path`.
    pub fn mount(directory: &Path, path: &Path, mib: u64) -> Volume {
        let image = directory.join("volume.img");
        fs::create_dir_all(path).expect("the test's directory can be written");
        let file = fs::File::create(&image).expect("the test's directory can be written");
        file.set_len(mib << 20).expect("a sparse file");
        run("mkfs.ext4", &["-q", "-F", text(&image)]);
        run("mount", &["-o", "loop", text(&image), text(path)]);
        Volume { path: path.to_path_buf(), frozen: false }
    }

    /// From now on writes hang.
    pub fn freeze(&mut self) {
        run("fsfreeze", &["-f", text(&self.path)]);
        self.frozen = true;
    }

    /// They go on.
    pub fn thaw(&mut self) {
        run("fsfreeze", &["-u", text(&self.path)]);
        self.frozen = false;
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        if self.frozen {
            let _ = Command::new("fsfreeze").arg("-u").arg(&self.path).status();
        }
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}

/// A directory that is away, with a file in its place so that nobody makes it anew.
pub struct Away {
    path: PathBuf,
    aside: PathBuf,
}

impl Away {
    /// Takes `path` away.
    pub fn take(path: &Path) -> Away {
        let aside = path.with_extension("away");
        fs::rename(path, &aside).expect("it is there");
        fs::write(path, "not a directory").expect("its parent can be written");
        Away { path: path.to_path_buf(), aside }
    }

    /// Brings it back as it was.
    pub fn bring_back(self) {
        fs::remove_file(&self.path).expect("put there by take");
        fs::rename(&self.aside, &self.path).expect("put there by take");
    }
}
