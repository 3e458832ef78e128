//! Every operation runs, tiny, and does what it did when its hash was recorded. Inputs and seeds are fixed, so a hash
//! changes only if what an operation makes changes; then look at the change before recording the new one.

use bench::{Meter, OPERATIONS, Scale};

const STEPS: usize = 3;

const RECORDED: &[(&str, u64)] = &[];

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
