use super::*;

/// A directory for a test, removed afterwards.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Place {
        let place = std::env::temp_dir().join(format!("driftless-discover-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&place);
        fs::create_dir_all(&place).unwrap();
        Place(place)
    }

    fn database(&self, name: &str) {
        self.file(name, b"SQLite format 3\0 and more");
    }

    fn file(&self, name: &str, content: &[u8]) {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn directory(&self, pattern: &str, recursive: bool) -> Directory {
        Directory {
            root: self.0.clone(),
            pattern: Pattern::parse(pattern).unwrap(),
            recursive,
            watch: false,
            replica: Replica::Directory(self.0.join("backup")),
            about: About::default(),
            settings: Arc::default(),
            restore_if_missing: false,
        }
    }

    fn found(&self, pattern: &str, recursive: bool) -> Vec<String> {
        let scan = self.directory(pattern, recursive).scan().unwrap();
        scan.databases.iter().map(|path| path.strip_prefix(&self.0).unwrap().display().to_string()).collect()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn only_databases_are_found() {
    let place = Place::new("found");
    for name in ["a.db", "x.sqlite", "one/b.db", "one/two/c.db", "one/.hidden.db"] {
        place.database(name);
    }
    // What has the magic and is none of the application's databases.
    for name in [
        "a.db-wal",
        "a.db.driftless-restore",
        ".driftless/j.db",
        ".a.db-driftless/j.db",
        "one/.b.db-litestream/j.db",
        "backup/a.db/ltx/0/j.db",
    ] {
        place.database(name);
    }
    place.file("empty.db", b"");
    place.file("short.db", b"SQLite");
    place.file("text.db", b"no database at all");
    fs::create_dir(place.0.join("directory.db")).unwrap();
    assert_eq!(place.found("*.db", false), ["a.db"]);
    assert_eq!(place.found("*.db", true), ["a.db", "one/.hidden.db", "one/b.db", "one/two/c.db"]);
    assert_eq!(place.found("*", false), ["a.db", "x.sqlite"]);
    assert_eq!(place.found("[xy].*", true), ["x.sqlite"]);
}

#[test]
fn links_are_told_and_not_followed() {
    let place = Place::new("links");
    place.database("a.db");
    place.database("elsewhere/b.db");
    std::os::unix::fs::symlink(place.0.join("elsewhere/b.db"), place.0.join("b.db")).unwrap();
    std::os::unix::fs::symlink(place.0.join("elsewhere"), place.0.join("loop.db")).unwrap();
    std::os::unix::fs::symlink(&place.0, place.0.join("elsewhere/up")).unwrap();
    let scan = place.directory("*.db", true).scan().unwrap();
    assert_eq!(scan.databases, [place.0.join("a.db"), place.0.join("elsewhere/b.db")]);
    let told: Vec<&PathBuf> = scan.passed_over.iter().map(|(path, _)| path).collect();
    assert_eq!(told, [&place.0.join("b.db")]);
}

#[test]
fn each_database_has_a_replica_at_its_path() {
    let place = Place::new("replicas");
    let flat = place.directory("*.db", false);
    let deep = place.directory("*.db", true);
    let of = |directory: &Directory, name: &str| {
        let job = directory.job_for(&place.0.join(name))?;
        Some(job.replica.directory().unwrap().strip_prefix(place.0.join("backup")).unwrap().to_path_buf())
    };
    // None of them is there.
    assert_eq!(of(&flat, "a.db"), Some("a.db".into()));
    assert_eq!(of(&flat, "one/b.db"), None);
    assert_eq!(of(&deep, "one/b.db"), Some("one/b.db".into()));
    for name in ["a.txt", "a.db-wal", ".a.db-driftless/x.db", "../a.db", ""] {
        assert_eq!(of(&deep, name), None, "{name}");
    }
    let object = Directory { replica: Replica::parse("s3://bucket/base").unwrap(), ..deep };
    let url = |name: &OsStr| object.job_for(&place.0.join(name)).map(|job| job.replica.url());
    assert_eq!(url("one/b.db".as_ref()).unwrap(), "s3://bucket/base/one/b.db");
    assert_eq!(url(OsStr::from_bytes(b"\xff.db")), None);
}

#[test]
fn what_finds_the_same_files_overlaps() {
    let place = Place::new("overlaps");
    let (flat, deep) = (place.directory("*.db", false), place.directory("*.db", true));
    let below = |directory: &Directory| Directory { root: place.0.join("one"), ..directory.clone() };
    assert!(flat.overlaps(&deep) && deep.overlaps(&below(&flat)) && below(&flat).overlaps(&deep));
    assert!(!flat.overlaps(&below(&deep)));
    assert!(!flat.overlaps(&place.directory("*.sqlite", true)));
}
