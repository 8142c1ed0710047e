//! `compression: zstd` as its users meet it: what is restored is what was written, whatever was set while it
//! was; a dictionary that is lost is named; and Litestream does not take such files for something else.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use driftless_tests::command::{restore, run, run_litestream};
use driftless_tests::daemon::ltx_files;
use driftless_tests::scene::{Scene, flip, names};
use driftless_tests::{Daemon, PATIENCE, dump_digest};

/// Says how to compress from now on.
fn set(scene: &Scene, how: &str) {
    let text = fs::read_to_string(&scene.config).expect("our own file");
    let rest = text.lines().filter(|line| !line.starts_with("compression"));
    let text: String = rest.map(|line| format!("{line}\n")).collect();
    fs::write(&scene.config, format!("{how}\n{text}")).expect("our own file");
}

/// Rows of words, enough for a dictionary.
fn write(scene: &Scene, seed: u64, rows: u64) {
    let app = rusqlite::Connection::open(&scene.db).expect("the application opens its database");
    app.execute_batch(&format!(
        "with recursive n(i) as (select 1 union all select i + 1 from n where i < {rows})
         insert into t(x) select '{{\"customer\": \"name ' || (i * 7919 % 1000) || '\", \"street\": \"' ||
         (i * {seed} % 97) || ' Main Street\", \"order\": ' || i || ', \"state\": \"delivered\"}}' from n"
    ))
    .expect("the application writes");
}

fn dictionaries(scene: &Scene) -> Vec<PathBuf> {
    let directory = scene.replica.join("dictionaries");
    if !directory.exists() {
        return Vec::new();
    }
    names(&directory).iter().map(|name| directory.join(name)).collect()
}

/// The header's flags, and the dictionary that it names.
fn codec(file: &Path) -> (u32, u64) {
    let bytes = fs::read(file).expect("a segment");
    let number = |at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().expect("a header"));
    ((number(4) >> 32) as u32, number(40))
}

/// Replicates for a while, until a dictionary is there.
fn replicate_until_a_dictionary(scene: &mut Scene) {
    let mut daemon = Daemon::replicate_at(&scene.db, &scene.replica, &scene.config);
    daemon.wait_until("a first segment", PATIENCE, || !ltx_files(&scene.replica, 0).is_empty());
    write(scene, 31, 4_000);
    daemon.wait_until("a dictionary", PATIENCE, || !dictionaries(scene).is_empty());
    daemon.wait_for_line("pages are compressed with dictionary");
    write(scene, 37, 400);
    daemon.term().expect_code(0);
}

fn check_restore(scene: &Scene, txid: Option<&str>, digest: &str) {
    let target = scene.dir.join("restored.db");
    let _ = fs::remove_file(&target);
    restore(&scene.replica, &target, txid).expect_ok();
    assert_eq!(dump_digest(&target), digest);
}

#[test]
fn each_transaction_is_restored_whatever_was_set_when_it_was_written() {
    let mut scene = Scene::fresh("zstd-mixed");
    let mut flags = Vec::new();
    for (txid, how) in (1..).zip([
        "",
        "compression: zstd",
        "compression: zstd\ncompression-level: 9",
        "",
        "compression: zstd",
    ]) {
        set(&scene, how);
        write(&scene, txid, 50);
        scene.replicate_once();
        flags.push(codec(&scene.level0(txid)).0);
    }
    assert_eq!(flags, [2, 0x1_0002, 0x1_0002, 2, 0x1_0002]);
    for (txid, digest) in (1..).zip(&scene.digests) {
        check_restore(&scene, Some(&format!("{txid:016x}")), digest);
    }
    check_restore(&scene, None, &scene.digests[4]);
    run(["verify".as_ref(), scene.replica.as_os_str()]).expect_ok();
}

#[test]
fn a_dictionary_is_made_used_after_a_restart_and_missed_when_it_is_lost() {
    let mut scene = Scene::fresh("zstd-dictionary");
    set(&scene, "compression: zstd");
    replicate_until_a_dictionary(&mut scene);
    let [dictionary] = &dictionaries(&scene)[..] else { panic!("one dictionary is there") };
    let name = dictionary.file_stem().expect("a name").to_str().expect("hexadecimal digits");
    let id = u64::from_str_radix(name, 16).expect("hexadecimal digits");
    let head = ltx_files(&scene.replica, 0).last().expect("a segment").1;
    assert_eq!(codec(&scene.level0(head)), (0x1_0002, id));
    // Another run goes on with it.
    write(&scene, 41, 50);
    scene.replicate_once();
    write(&scene, 43, 50);
    scene.replicate_once();
    assert_eq!(codec(&scene.level0(head + 2)), (0x1_0002, id));
    check_restore(&scene, None, &dump_digest(&scene.db));
    run(["verify".as_ref(), scene.replica.as_os_str()]).expect_ok();

    let target = scene.dir.join("refused.db");
    let refused = || {
        let (o, to) = ("-o".as_ref(), target.as_os_str());
        run(["restore".as_ref(), o, to, scene.replica.as_os_str()])
    };
    flip(dictionary, 40);
    refused().expect_error(4, &[name, "is damaged", "compressed with it"]);
    fs::remove_file(dictionary).expect("it is there");
    refused().expect_error(4, &[name, "is missing", "compressed with it"]);
    run(["verify".as_ref(), scene.replica.as_os_str()]).expect_error(4, &[name, "is missing"]);
    assert!(!target.exists());
}

#[test]
fn a_mixed_history_is_compacted() {
    let mut scene = Scene::fresh("zstd-levels");
    write(&scene, 3, 300);
    scene.replicate_once();
    let text = fs::read_to_string(&scene.config).expect("our own file");
    let levels =
        "levels: [{interval: 1s}, {interval: 2s}]\nsnapshot: {interval: 3s}\nverify-compaction: true\n";
    fs::write(&scene.config, format!("{levels}{text}")).expect("our own file");
    set(&scene, "compression: zstd");
    replicate_until_a_dictionary(&mut scene);
    let mut daemon = Daemon::replicate_at(&scene.db, &scene.replica, &scene.config);
    write(&scene, 47, 200);
    daemon.wait_until("a level with the dictionary", Duration::from_secs(60), || {
        let newest = ltx_files(&scene.replica, 2).last().copied();
        newest.is_some_and(|(min, max)| {
            codec(&scene.replica.join(format!("ltx/2/{min:016x}-{max:016x}.ltx"))).1 != 0
        })
    });
    daemon.term().expect_code(0);
    check_restore(&scene, None, &dump_digest(&scene.db));
    run(["verify".as_ref(), scene.replica.as_os_str()]).expect_ok();
    // Back to what Litestream reads: from the next snapshot on, which is compressed as the newest segment is.
    set(&scene, "compression: lz4");
    let before = ltx_files(&scene.replica, 9).last().copied();
    let mut daemon = Daemon::replicate_at(&scene.db, &scene.replica, &scene.config);
    write(&scene, 53, 200);
    daemon.wait_until("a snapshot in lz4", Duration::from_secs(60), || {
        let newest = ltx_files(&scene.replica, 9).last().copied();
        newest != before
            && newest.is_some_and(|(min, max)| {
                codec(&scene.replica.join(format!("ltx/9/{min:016x}-{max:016x}.ltx"))).0 == 2
            })
    });
    daemon.term().expect_code(0);
    let digest = dump_digest(&scene.db);
    check_restore(&scene, None, &digest);
    let target = scene.dir.join("litestream.db");
    let url = format!("file://{}", scene.replica.display());
    run_litestream(["restore", "-o", target.to_str().expect("UTF-8"), &url]).expect_ok();
    assert_eq!(dump_digest(&target), digest);
}

#[test]
fn litestream_refuses_what_it_cannot_read() {
    let mut scene = Scene::fresh("zstd-litestream");
    scene.replicate_once();
    set(&scene, "compression: zstd");
    write(&scene, 5, 50);
    scene.replicate_once();
    let target = scene.dir.join("litestream.db");
    let url = format!("file://{}", scene.replica.display());
    let ran = run_litestream(["restore", "-o", target.to_str().expect("UTF-8"), &url]);
    assert_ne!(ran.code, 0, "{ran:?}");
    assert!(!target.exists(), "nothing is left that could be taken for the database");
}
