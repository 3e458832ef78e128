//! Times every operation of [`bench::OPERATIONS`].

use std::time::Duration;

use bench::{Meter, OPERATIONS, Scale};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn operations(criterion: &mut Criterion) {
    for operation in OPERATIONS {
        let (group, name) = operation.name.split_once('/').expect("names are group/name");
        let mut group = criterion.benchmark_group(group);
        group
            .warm_up_time(Duration::from_millis(300))
            .measurement_time(Duration::from_secs(1))
            .sample_size(20);
        // Made when it runs: a filter on the command line spares a million subscriptions.
        let mut prepared = None;
        let units = operation.prepare(Scale::Tiny).units;
        group.throughput(Throughput::Elements(units));
        group.bench_function(name, |bencher| {
            let prepared = prepared.get_or_insert_with(|| operation.prepare(Scale::Full));
            bencher.iter_custom(|steps| {
                let mut meter = Meter::default();
                (0..steps).for_each(|_| prepared.step(&mut meter));
                meter.spent()
            });
        });
        group.finish();
    }
}

criterion_group!(benches, operations);
criterion_main!(benches);
