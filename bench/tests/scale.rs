//! The figures of scale, tiny: what is matched is what is subscribed, and the sizes stay where they were measured.

use bench::scale::{Sizes, measure};

#[test]
fn each_topic_finds_its_subscription_and_entries_keep_their_size() {
    let figures = measure(Sizes { few: 100, many: 20_000, topics: 2000 });
    assert_eq!((figures.found_few, figures.found_many), (2000, 2000));
    // Tables and arenas double, so up to half of each is empty; the texts are 30 bytes and lie in the arena.
    assert!(figures.subscription_bytes < 200.0, "{figures:?}");
    assert!(figures.shared_bytes < 70.0, "{figures:?}");
    assert!(figures.remote_exact_bytes < 30.0, "{figures:?}");
    assert!(figures.remote_wildcard_bytes < 260.0, "{figures:?}");
}
