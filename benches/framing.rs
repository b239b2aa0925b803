//! Finding where responses end: a point select whole, and a 1 MB result as it comes, 16 KiB at a time.

mod answers;

use answers::result;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use holdfast::wire::command::Answer;
use holdfast::wire::response::{Scanner, Shape, Step};
use std::hint::black_box;

const SHAPE: Shape = Shape { deprecate_eof: true, optional_metadata: false };
/// One read of the proxy.
const READ: usize = 16 * 1024;

/// Scans `response` in reads of `READ` bytes; answers the packets that said something.
fn scan(response: &[u8]) -> usize {
    let mut scanner = Scanner::new(Answer::Results, SHAPE);
    let (mut start, mut end, mut said) = (0, 0, 0);
    while !scanner.is_done() {
        end = response.len().min(end + READ);
        while let Ok(Step::Packet { .. }) = scanner.scan(&response[start..end]) {
            said += 1;
        }
        let whole = scanner.whole();
        scanner.consumed(whole);
        start += whole;
    }
    said
}

fn framing(criterion: &mut Criterion) {
    for (name, response) in [("point", result(1, 119)), ("1 MB of rows", result(1000, 1000))] {
        assert_eq!(scan(&response), 1);
        let mut group = criterion.benchmark_group("framing");
        group.throughput(Throughput::Bytes(response.len() as u64));
        group.bench_function(name, |bencher| bencher.iter(|| scan(black_box(&response))));
        group.finish();
    }
}

criterion_group!(benches, framing);
criterion_main!(benches);
