//! What an entry may say, and what is found by it.

use super::*;

#[test]
fn pattern_and_depth_are_respected_as_by_litestream() {
    let place = Place::new("directories-pattern", "pattern: \"[ab]*.db\"");
    for name in ["a1.db", "b2.db", "c3.db", "a.sqlite", "below/a4.db"] {
        drop(place.database(name));
    }
    fs::write(place.path("a-text.db"), "no database, however it is called").unwrap();
    fs::write(place.path("a-empty.db"), "").unwrap();
    let found = |ran: Ran| -> Vec<String> {
        let rows = ran.expect_ok().json();
        let path = |row: &serde_json::Value| {
            let path = PathBuf::from(row["path"].as_str().unwrap());
            path.strip_prefix(place.dir.join("srv")).unwrap().display().to_string()
        };
        rows.as_array().unwrap().iter().map(path).collect()
    };
    assert_eq!(found(place.run("databases -json")), ["a1.db", "b2.db"]);
    let args = ["-config".as_ref(), place.config.as_os_str()];
    let mut rival = Daemon::litestream(&place.dir.join("rival"), &args);
    rival.wait_for_line("count=2");
    rival.wait_until("its segments", PATIENCE, || {
        ["a1.db", "b2.db"].iter().all(|name| !daemon::level0(&place.replica(name)).is_empty())
    });
    rival.term();
    // What it has written is found by the same configuration.
    for name in ["a1.db", "b2.db"] {
        let listed = place.run(&format!("ltx -json @{name}")).expect_ok().json();
        assert!(!listed.as_array().unwrap().is_empty(), "{name}");
        place.run(&format!("verify @{name}")).expect_ok();
        place.run(&format!("restore -o {name} @{name}")).expect_ok();
        assert_eq!(dump_digest(&place.dir.join(name)), place.digest(name));
    }
    place.run("ltx @c3.db").expect_error(2, &["is not a database of the configuration"]).expect_hint();
    place.run("ltx @below/a4.db").expect_error(2, &["is not a database of the configuration"]);
    place.configure("pattern: \"*\"\n    recursive: true");
    let all = ["a.sqlite", "a1.db", "b2.db", "below/a4.db", "c3.db"];
    assert_eq!(found(place.run("databases -json")), all);
}

#[test]
fn mistakes_are_told_before_anything_begins() {
    let place = Place::new("directories-mistakes", "pattern: \"*.db\"");
    let refused = |keys: &str, words: &[&str]| {
        place.configure(keys);
        for command in ["replicate", "check"] {
            place.run(command).expect_error(2, words);
        }
        assert!(!place.dir.join("backup").exists());
    };
    refused("recursive: true", &["has no pattern"]);
    refused("pattern: \"a[\"", &["a bracket is not closed"]);
    refused("pattern: \"*.db\"\n    path: /srv/a.db", &["both path and dir"]);
    refused("pattern: \"*.db\"", &["there is no database in", "*.db"]);
    fs::remove_dir_all(place.dir.join("srv")).unwrap();
    place.configure("pattern: \"*.db\"\n    watch: true");
    place.run("replicate").expect_error(2, &["there is no directory"]).expect_hint();
    place.run("check").expect_error(2, &["cannot look into the directory"]);
    fs::write(place.dir.join("srv"), "a file").unwrap();
    place.run("replicate").expect_error(2, &["is no directory"]).expect_hint();
}

#[test]
fn a_file_has_one_entry() {
    let place = Place::new("directories-overlap", "pattern: \"*.db\"");
    drop(place.database("app.db"));
    let (srv, dir) = (place.dir.join("srv"), place.dir.path().display().to_string());
    let srv = srv.display();
    let second = |entry: &str| {
        place.configure("pattern: \"*.db\"");
        let text = fs::read_to_string(&place.config).unwrap();
        fs::write(&place.config, format!("{text}  - {entry}\n")).unwrap();
    };
    second(&format!("{{dir: {srv}, pattern: \"*.db\", replica: {dir}/second}}"));
    place.run("replicate -once").expect_error(2, &["stands twice"]).expect_hint();
    second(&format!("{{dir: {srv}, pattern: \"app*\", replica: {dir}/second}}"));
    place.run("replicate -once").expect_error(2, &["app.db is found by two entries"]).expect_hint();
    place.run("check").expect_error(2, &["app.db is found by two entries"]);
    // One that is named by itself is that.
    second(&format!("{{path: {srv}/app.db, replica: {dir}/second}}"));
    drop(place.database("other.db"));
    place.run("replicate -once").expect_ok();
    assert!(!daemon::level0(&place.dir.join("second")).is_empty());
    assert!(!place.replica("app.db").exists() && !daemon::level0(&place.replica("other.db")).is_empty());
}
