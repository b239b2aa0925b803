//! What classifying costs: it happens once per statement, on the thread that forwards it.
#![allow(missing_docs, reason = "criterion's macros make public functions")]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use holdfast::classify::{Class, Dialect, Flavor, SqlMode, classify};
use std::hint::black_box;

fn statements() -> Vec<(&'static str, String, Class)> {
    let columns: Vec<_> = (0..60).map(|i| format!("`customers`.`column_number_{i}` AS `c1_column_{i}`")).collect();
    let orm = format!(
        "SELECT {} FROM `customers` LEFT OUTER JOIN `orders` ON `orders`.`customer_id` = `customers`.`id` \
         WHERE `customers`.`state` IN ('new', 'old') AND COALESCE(`orders`.`total`, 0) > 5 AND `customers`.`name` LIKE 'a%' \
         ORDER BY `customers`.`id` DESC LIMIT 50 OFFSET 100",
        columns.join(", ")
    );
    let row = "(1234567, 'some text of a row', '2024-01-01 00:00:00'),";
    let insert = format!("INSERT INTO t VALUES {}(1, '', '')", row.repeat((1 << 20) / row.len()));
    let point = "SELECT c FROM sbtest1 WHERE id=5012".to_owned();
    let range = "SELECT DISTINCT c FROM sbtest1 WHERE id BETWEEN 4992 AND 5091 ORDER BY c".to_owned();
    let sum = "SELECT SUM(k) FROM sbtest1 WHERE id BETWEEN ? AND ?".to_owned();
    let update = "UPDATE sbtest1 SET k=k+1 WHERE id=5012".to_owned();
    let in_list = format!("SELECT * FROM t WHERE id IN ({}0)", "1234567,".repeat(2000));
    vec![
        ("point_select", point, Class::Read),
        ("sysbench_distinct_range", range, Class::Read),
        ("sysbench_sum_range", sum, Class::Read),
        ("sysbench_update", update, Class::Write),
        ("commit", "COMMIT".to_owned(), Class::Commit { chain: false, release: false }),
        ("orm_select_4k", orm, Class::Read),
        ("in_list_16k", in_list, Class::Read),
        ("insert_1m", insert, Class::Write),
    ]
}

fn bench(c: &mut Criterion) {
    let dialect =
        Dialect { flavor: Flavor::MySql { version: 90704 }, mode: SqlMode::default(), multibyte_escape_unsafe: false };
    let mut group = c.benchmark_group("classify");
    for (name, sql, class) in statements() {
        assert_eq!(classify(sql.as_bytes(), dialect).class, class, "{name}");
        group.throughput(Throughput::Bytes(sql.len() as u64));
        group.bench_with_input(BenchmarkId::from_parameter(name), sql.as_bytes(), |b, sql| {
            b.iter(|| classify(black_box(sql), black_box(dialect)));
        });
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
