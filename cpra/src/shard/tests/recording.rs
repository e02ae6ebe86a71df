//! What is written down of checks.

use super::*;
use crate::queueing::recording::Gathered;

/// Tags with how many times they hold.
fn handed_over(shard: &mut Shard) -> Vec<(String, u64)> {
    let mut recording = shard.exchange_recording(Shard::empty_recording());
    let mut gathered = Gathered::default();
    gathered.take(&mut recording);
    gathered.series().map(|(tag, times)| (tag.to_string(), times.count())).collect()
}

#[test]
fn what_checks_took_is_handed_over_once() {
    let mut bench = Bench::new(vec![tcp("db"), http("web", false)]);
    assert_eq!(handed_over(&mut bench.shard), [], "nothing has been checked");
    bench.check("db");
    assert_eq!(handed_over(&mut bench.shard), [], "it is in flight");
    bench.pass(Span::from_millis(30));
    bench.answer(&[(OpKind::Connect, Ok(0), b"")]);
    assert_eq!(bench.outcome("db"), Some(Code::L4Ok));
    let mut recording = bench.shard.exchange_recording(Shard::empty_recording());
    let mut gathered = Gathered::default();
    gathered.take(&mut recording);
    let took: Vec<_> =
        gathered.series().map(|(tag, times)| (tag.to_string(), times.count(), times.max().round())).collect();
    assert_eq!(took, [("pulse-tcp-service".to_owned(), 1, 30.0), ("pulse-tcp-result".to_owned(), 1, 30.0)]);
    assert_eq!(handed_over(&mut bench.shard), []);
}
