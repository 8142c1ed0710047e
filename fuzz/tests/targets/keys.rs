//! Names of segments: read only as they are written, in both layouts.

use driftless_adapters::keys::{Key, ReplicaLayout, level_prefix, parse_segment_key, segment_key};
use driftless_core::ids::{Level, Txid, TxidRange};
use driftless_core::ltx::{file_name, parse_file_name};
use driftless_fuzz::Feed;

const LAYOUTS: [ReplicaLayout; 2] = [ReplicaLayout::Directory, ReplicaLayout::Object];

fn check_text(text: &str) {
    for layout in LAYOUTS {
        if let Some((level, range)) = parse_segment_key(layout, text) {
            assert_eq!(segment_key(layout, level, range).as_str(), text, "a name is written in one way only");
        }
    }
    if let Some(range) = parse_file_name(text) {
        assert_eq!(file_name(range), text);
    }
    if let Ok(key) = Key::new(text) {
        assert!(
            key.as_str().split('/').all(|part| !matches!(part, "" | "." | "..")),
            "a key stays below its root"
        );
    }
}

#[test]
fn segment_keys() {
    bolero::check!().with_iterations(80_000).with_max_len(128).for_each(|bytes: &[u8]| {
        check_text(&String::from_utf8_lossy(bytes));

        let mut feed = Feed::new(bytes);
        let level = Level::new(feed.below(10) as u8).unwrap();
        let one = Txid::new((feed.u64() >> feed.below(64)).max(1)).unwrap();
        let other = Txid::new((feed.u64() >> feed.below(64)).max(1)).unwrap();
        let range = TxidRange::new(one.min(other), one.max(other)).unwrap();
        let layout = LAYOUTS[feed.below(2) as usize];
        let key = segment_key(layout, level, range);
        assert_eq!(parse_segment_key(layout, key.as_str()), Some((level, range)));
        assert!(key.as_str().starts_with(&level_prefix(layout, level)));
        assert_eq!(parse_file_name(&file_name(range)), Some(range));

        // One character changed: another name, or none.
        let mut near = key.as_str().as_bytes().to_vec();
        let at = feed.below(near.len() as u32) as usize;
        near[at] = feed.u8();
        check_text(&String::from_utf8_lossy(&near));
    });
}
