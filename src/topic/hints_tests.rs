//! Hints must never be wrong about what there is, and seldom about what there is not.

use super::{RetainedHints, fingerprint, matches};

fn hash(text: &str) -> u64 {
    fingerprint(&[1, 2, 3, 4], text)
}

fn note(hints: &RetainedHints, topic: &str) {
    hints.note(topic, hash(topic), hash);
}

const TOPICS: &[&str] = &["a", "a/b", "a/b/c", "/a", "/", "$SYS/a", "$a", "b//c", "ä/b", "+x"];
const FILTERS: &[&str] = &[
    "#", "+", "+/#", "+/b", "a", "a/#", "a/+", "a/b", "a/b/c", "/#", "/+", "/a", "$SYS/#", "$SYS/+",
    "$SYS/a", "$a", "b/+/c", "b/#", "c", "c/#", "ä/+", "ä/b", "b",
];

#[test]
fn whoever_could_get_something_asks() {
    for topic in TOPICS {
        let hints = RetainedHints::default();
        note(&hints, topic);
        for filter in FILTERS {
            let would_get = matches(filter, topic);
            assert!(!would_get || hints.may_match(filter, hash), "{topic} is not asked for by {filter}");
        }
    }
}

#[test]
fn hardly_anybody_asks_in_vain() {
    let hints = RetainedHints::default();
    assert!(FILTERS.iter().all(|filter| !hints.may_match(filter, hash)), "nothing was retained");
    (0..1000).for_each(|number| note(&hints, &format!("$SYS/broker/{number}")));
    assert!(!hints.may_match("#", hash) && !hints.may_match("+/broker/1", hash)); // [MQTT-4.7.2-1]
    (0..100_000).for_each(|number| note(&hints, &format!("devices/{number}/state")));
    assert!(hints.may_match("#", hash) && hints.may_match("devices/+/commands", hash));
    let in_vain = (0..100_000).filter(|number| hints.may_match(&format!("devices/{number}/commands"), hash));
    let in_vain = in_vain.count();
    assert!(in_vain < 12_000, "{in_vain} of 100,000 ask in vain");
    let in_vain = (0..1000).filter(|number| hints.may_match(&format!("rooms-{number}/+"), hash)).count();
    assert!(in_vain < 150, "{in_vain} of 1,000 ask in vain");
}
