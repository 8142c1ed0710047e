//! A directory whose replicas have a bucket to themselves.

use driftless_tests::servers::moto;

use super::*;

#[test]
fn a_bucket_holds_a_directory() {
    let bucket = moto().bucket("directories");
    let place = Place::new("directories-bucket", "");
    let (srv, endpoint, key) = (place.dir.join("srv"), bucket.endpoint(), bucket.key());
    let text = format!(
        "dbs:\n  - dir: {}\n    pattern: \"*.db\"\n    recursive: true\n    replica:\n      type: s3\n      \
         bucket: {}\n      endpoint: {endpoint}\n      force-path-style: true\n      access-key-id: {}\n      \
         secret-access-key: {}\n",
        srv.display(),
        bucket.name(),
        key.id,
        key.secret
    );
    fs::write(&place.config, text).unwrap();
    let names = ["a.db", "one/b.db", "one/two/ä c.db"];
    for name in names {
        drop(place.database(name));
    }
    place.run("replicate -once").expect_ok();
    assert!(bucket.head("one/b.db/0000/0000000000000001-0000000000000001.ltx").is_some());
    let digests = names.map(|name| place.digest(name));
    // Another host, with nothing but the configuration.
    fs::remove_dir_all(&srv).unwrap();
    place.run("ltx @one/b.db").expect_ok();
    place.run("restore -all").expect_ok();
    assert_eq!(names.map(|name| place.digest(name)), digests);
    place.run("verify @a.db").expect_ok();
}
