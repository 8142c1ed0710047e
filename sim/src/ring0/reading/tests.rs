//! A reader that goes on says what one says that begins.

use crate::disk::{DiskConfig, SimClock};
use crate::model::Model;
use crate::ring0::app::{App, AppOp, PATH, Work};
use crate::ring0::dice::Dice;
use crate::ring0::misfortune::Misfortune;
use crate::ring0::sites::{Sites, Strike};

use super::*;

const PENDING: u64 = 0x1_0000;

fn op(dice: &Dice, n: u64) -> AppOp {
    let work = match dice.draw("work", "", n) % 3 {
        0 => Work::Insert { rows: 40, bytes: 300 },
        1 => Work::Update { of: 3 },
        _ => Work::Insert { rows: 1, bytes: 30 },
    };
    match dice.draw("op", "", n) % 16 {
        0..=7 => AppOp::Write(work),
        8 => AppOp::Begin(work),
        9 => AppOp::FailCommit(work),
        10 => AppOp::DieInCommit(work),
        11 => AppOp::Checkpoint("PASSIVE"),
        12 => AppOp::Checkpoint("TRUNCATE"),
        13 => AppOp::Vacuum,
        14 => AppOp::ReaderBegin,
        _ => AppOp::ReaderEnd,
    }
}

#[test]
fn going_on_says_what_beginning_says() {
    for seed in 0..20 {
        let dice = Dice::new(seed);
        let clock = SimClock::new(1_800_000_000_000_000_000);
        let disk = Disk::new(DiskConfig::default(), clock);
        let sqlite = Model::new(disk.clone(), seed, PENDING, true);
        let mut app = App::new(&sqlite, true, Misfortune::new(dice, 0, Sites::new(Strike::All)));
        app.perform(&sqlite, AppOp::Open { page_bytes: 512 }).unwrap();
        let mut reader = Reader::default();
        for n in 0..200 {
            app.perform(&sqlite, op(&dice, n)).unwrap();
            if dice.chance("flip", "", n, 1, 50) {
                disk.flip(&format!("{PATH}-wal"), 100, 1);
                disk.flip(PATH, 600, 1);
            }
            let (going, fresh) = (reader.read(&disk, PATH, PENDING), read(&disk, PATH, PENDING));
            let (going, fresh) = (going.unwrap(), fresh.unwrap());
            assert_eq!(going.end, fresh.end, "seed {seed}, operation {n}");
            assert!(going.image == fresh.image, "seed {seed}, operation {n}");
            if dice.chance("flip", "", n, 1, 50) {
                disk.flip(&format!("{PATH}-wal"), 100, 1);
                disk.flip(PATH, 600, 1);
            }
        }
    }
}
