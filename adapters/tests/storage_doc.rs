//! `docs/STORAGE.md` shows a whole store. It is the file that is compiled and passes the battery,
//! word for word, and its tables name what exists.

use driftless_adapters::battery;
use driftless_adapters::store::StoreErrorKind;

#[expect(dead_code, reason = "its constructor is for the example's own main")]
#[path = "../examples/own_store.rs"]
mod own_store;

const DOC: &str = include_str!("../../docs/STORAGE.md");
const EXAMPLE: &str = include_str!("../examples/own_store.rs");

#[test]
fn the_example_conforms() {
    let dir = std::env::temp_dir().join(format!("driftless-storage-doc-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir(&dir).unwrap();
    let store = own_store::FlatStore::new(&dir);
    let report = futures_lite::future::block_on(battery::run(&store, &battery::Options::default()));
    std::fs::remove_dir_all(&dir).unwrap();
    assert!(report.passed(), "{report}");
    let swaps = [
        "swap_is_exact",
        "swap_names_its_version",
        "swap_of_nothing",
        "swap_of_large",
        "swap_has_one_winner",
    ];
    assert_eq!(report.unclaimed().collect::<Vec<_>>(), [&swaps[..], &["list_modified"]].concat());
}

#[test]
fn the_page_shows_the_example_as_it_is() {
    let shown = format!("```rust\n{EXAMPLE}```\n");
    assert!(DOC.contains(&shown), "paste adapters/examples/own_store.rs into docs/STORAGE.md");
}

/// The first cells of the table that follows `heading`, without their backquotes.
fn first_cells(heading: &str) -> Vec<&'static str> {
    let section = DOC.split_once(heading).expect("the heading exists").1;
    let rows = section.lines().skip_while(|line| !line.starts_with("|---")).skip(1);
    let cells = rows.take_while(|line| line.starts_with("| `")).map(|line| line.split('`').nth(1).unwrap());
    cells.collect()
}

#[test]
fn the_tables_name_every_kind_and_check() {
    let kinds: Vec<_> = StoreErrorKind::ALL.iter().map(|kind| format!("{kind:?}")).collect();
    assert_eq!(first_cells("## Errors"), kinds);
    let checks: Vec<_> = battery::check_names().collect();
    assert_eq!(first_cells("## The battery"), checks);
}
