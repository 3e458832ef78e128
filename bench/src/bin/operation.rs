//! `operation NAME`: one operation of [`bench::OPERATIONS`] on its fixed inputs, for `scripts/instructions`, which counts
//! what happens within `bench::counted`. Without a name: their names. Prints `UNITS HASH`.

use bench::{Meter, OPERATIONS, Operation, Scale};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Steps before the counted ones, so that tables and buffers have the size that they keep.
const WARM: usize = 3;
/// Steps that are counted.
const STEPS: u64 = 4;

fn main() -> Result<(), String> {
    let mut args = std::env::args().skip(1);
    let Some(name) = args.next() else {
        OPERATIONS.iter().for_each(|operation| println!("{}\t{}", operation.name, operation.unit));
        return Ok(());
    };
    let operation = Operation::find(&name).ok_or(format!("no operation '{name}'"))?;
    let mut prepared = operation.prepare(Scale::Count);
    let mut meter = Meter::default();
    (0..WARM).for_each(|_| prepared.step(&mut meter));
    meter.count();
    (0..STEPS).for_each(|_| prepared.step(&mut meter));
    println!("{} {:016x}", STEPS * prepared.units, meter.hash());
    Ok(())
}
