//! Every operation runs, tiny, and does what it did when its hash was recorded. Inputs and seeds are fixed, so a hash
//! changes only if what an operation makes changes; then look at the change before recording the new one.

use bench::{Meter, OPERATIONS, Scale};

const STEPS: usize = 3;

const RECORDED: &[(&str, u64)] = &[
    ("decode/publish", 0x4C08DC66B6EC0745),
    ("decode/publish-properties", 0xF348C8C8D1C70CE1),
    ("decode/puback", 0xBE1CCAAC039207F3),
    ("encode/publish", 0x2F1CAFE4A97C422B),
    ("encode/puback", 0x86E294EAF77A73DE),
    ("match/1-cached", 0x97A9120CF629819F),
    ("match/1-cold", 0x97A9120CF629819F),
    ("match/1000-cached", 0xBE1CCAAC039207F3),
    ("match/1000-cold", 0xBE1CCAAC039207F3),
    ("match/1000000-cached", 0x8C6FA1B83DD65C0B),
    ("match/1000000-cold", 0x8C6FA1B83DD65C0B),
    ("fanout/qos0", 0xEAD0DB73B36E08D1),
    ("fanout/qos1", 0x7B99F0A69AF2B565),
    ("mesh/ring", 0x6C3A9135D18269B7),
    ("turn/p2p-qos0", 0x95B224952D5D81ED),
    ("turn/p2p-qos1", 0x9C36F6482EA94355),
    ("turn/p2p-qos2", 0x839F7B6301A20D6D),
    ("turn/p2p-each", 0x93FF5FA371FFC7FB),
    ("turn/p2p-many", 0x4686EFB6F22EBE07),
    ("turn/p2p-16k", 0xC865F610DD72385D),
    ("turn/tls-p2p-qos0", 0x5F261EE4637003CD),
    ("turn/tls-p2p-16k", 0xAA235AF49B9BC47D),
    ("turn/fan-out", 0x39ED1905A79A8725),
    ("turn/fan-out-qos1", 0xBA23166CE6F70F9D),
    ("turn/fan-in", 0x0D875700B3974AEE),
    ("shards/cross-qos0", 0xA9C2174115D83D3D),
    ("shards/cross-qos1", 0x0F30E7EFB353B955),
    ("shards/cross-single", 0x5FBB8AF99C74A7E9),
    ("shards/fan-out", 0xBB1E5C41F50302ED),
    // The same as without peers.
    ("shards/63-idle-peers", 0xB7C66C9614B38E41),
    ("turn/single", 0xB7C66C9614B38E41),
];

#[test]
fn every_operation_does_what_it_did() {
    let found: Vec<(&str, u64)> = OPERATIONS
        .iter()
        .map(|operation| {
            let mut prepared = operation.prepare(Scale::Tiny);
            let mut meter = Meter::default();
            (0..STEPS).for_each(|_| prepared.step(&mut meter));
            (operation.name, meter.hash())
        })
        .collect();
    let lines: String =
        found.iter().map(|(name, hash)| format!("    (\"{name}\", {hash:#018X}),\n")).collect();
    assert_eq!(found, RECORDED, "now:\n{lines}");
}

#[test]
fn operations_have_names_of_their_own() {
    let mut names: Vec<&str> = OPERATIONS.iter().map(|operation| operation.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), OPERATIONS.len());
}
