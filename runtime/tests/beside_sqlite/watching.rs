//! Noticing commits, by event and by polling.

use std::io::Write;
use std::process::Command;
use std::time::Duration;

use driftless::sqlite::{Slot, probe};
use driftless::watch::{PollWatcher, WatchEvent, WatchMode, Watcher};

use super::place::{Place, write};

/// The next batch, which must come.
fn next_batch(watcher: &mut Watcher) -> Vec<WatchEvent> {
    let late = async {
        async_io::Timer::after(Duration::from_secs(10)).await;
        panic!("no event in ten seconds")
    };
    futures_lite::future::block_on(futures_lite::future::or(watcher.next(), late)).expect("the queue")
}

#[test]
fn every_commit_is_seen_through_its_directory() {
    let place = Place::new();
    let mut app = place.app(1);
    // As root, SQLite hands -wal and -shm to the database's owner when it opens them, which
    // changes their attributes: a link is heard once, when it opens.
    let mut link = place.link();
    link.begin_read(Slot::A).expect("begin");
    link.end_read(Slot::A).expect("end");
    let mut watcher = Watcher::new();
    assert_eq!(watcher.watch(&place.dir).expect("watch"), WatchMode::Events);
    assert_eq!(watcher.watch(&place.dir).expect("again"), WatchMode::Events);
    let wal = WatchEvent::Changed(probe::companion(&place.db, "-wal"));
    for _ in 0..20 {
        write(&mut app, 10);
        assert_eq!(next_batch(&mut watcher), std::slice::from_ref(&wal), "ten commits, one event");
    }
    // What a link does between checkpoints is silent.
    link.begin_immediate(Slot::A).expect("lock");
    link.rollback(Slot::A).expect("rollback");
    link.begin_read(Slot::A).expect("begin");
    link.read_pages(0, 4096).expect("pages");
    link.read_wal(0, 4096).expect("frames");
    probe::stat_facts(&place.db).expect("facts");
    let silent = async {
        async_io::Timer::after(Duration::from_millis(20)).await;
        Ok(Vec::new())
    };
    let heard = futures_lite::future::block_on(futures_lite::future::or(watcher.next(), silent));
    assert_eq!(heard.expect("the queue"), []);
}

#[test]
fn a_directory_that_goes_says_so() {
    let place = Place::new();
    let (old, new) = (place.dir.join("old"), place.dir.join("new"));
    std::fs::create_dir(&old).expect("mkdir");
    let mut watcher = Watcher::new();
    watcher.watch(&old).expect("watch");
    std::fs::write(old.join("x.db"), "x").expect("write");
    assert_eq!(next_batch(&mut watcher), [WatchEvent::Changed(old.join("x.db"))]);
    std::fs::rename(&old, &new).expect("rename");
    assert_eq!(next_batch(&mut watcher), [WatchEvent::DirectoryGone(old.clone())]);
    std::fs::create_dir(&old).expect("mkdir");
    watcher.watch(&old).expect("watch the new one");
    std::fs::write(new.join("y.db"), "y").expect("write");
    std::fs::write(old.join("z.db"), "z").expect("write");
    assert_eq!(next_batch(&mut watcher), [WatchEvent::Changed(old.join("z.db"))]);
    watcher.unwatch(&old);
    std::fs::write(old.join("z.db"), "unseen").expect("write");
    watcher.watch(&new).expect("watch");
    std::fs::remove_dir_all(&new).expect("remove");
    let batch = next_batch(&mut watcher);
    assert_eq!(batch.last(), Some(&WatchEvent::DirectoryGone(new.clone())));
    assert!(!batch.contains(&WatchEvent::Changed(old.join("z.db"))));
    assert!(watcher.watch(&new).is_err(), "it is not there");
}

#[test]
fn polling_sees_what_stat_sees() {
    let place = Place::new();
    let mut poll = PollWatcher::new();
    poll.add(&place.db);
    assert_eq!(poll.poll(), [], "nothing is there");
    let mut app = place.app(1);
    let changed = [WatchEvent::Changed(place.db.clone())];
    assert_eq!(poll.poll(), changed);
    write(&mut app, 1);
    assert_eq!(poll.poll(), changed);
    // Stamps of long ago, so that the last look cannot have missed anything.
    let age = |suffix: &str| {
        let file = probe::companion(&place.db, suffix);
        let aged = Command::new("touch").args(["-d", "2020-01-01"]).arg(file).status().expect("touch");
        assert!(aged.success());
    };
    age("");
    age("-wal");
    assert_eq!(poll.poll(), changed, "the stamps differ");
    assert_eq!(poll.poll(), [], "and are old");
    write(&mut app, 1);
    assert_eq!(poll.poll(), changed);
    assert_eq!(poll.poll(), changed, "a young stamp may hide a second commit");
    poll.remove(&place.db);
    assert_eq!(poll.poll(), []);
}

#[test]
fn an_unread_queue_overflows_and_says_so() {
    let limit = std::fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").expect("the limit");
    let limit: usize = limit.trim().parse().expect("a number");
    let place = Place::new();
    let mut watcher = Watcher::new();
    watcher.watch(&place.dir).expect("watch");
    let mut files =
        ["a.db-wal", "b.db-wal"].map(|name| std::fs::File::create(place.dir.join(name)).expect("create"));
    // In turns, because the kernel merges an event with an equal one before it.
    for n in 0..limit + 10 {
        files[n % 2].write_all(b"x").expect("write");
    }
    let mut overflowed = false;
    for _ in 0..limit {
        if next_batch(&mut watcher).contains(&WatchEvent::Overflow) {
            overflowed = true;
            break;
        }
    }
    assert!(overflowed);
}
