//! Malformed inputs and the exact text of what is said about them: `faults.txt` holds both, one pair after the other.

use super::*;

#[test]
fn every_fault_is_said_in_these_words() {
    let mut pairs = 0;
    for pair in include_str!("faults.txt").split("=== input\n").skip(1) {
        let (input, expected) = pair.split_once("=== said\n").expect("what is said follows the input");
        let (_, report) = load(input);
        assert_eq!(report.diagnostics.to_string(), expected, "\n{input}");
        pairs += 1;
    }
    assert!(pairs >= 90, "only {pairs} pairs were found");
}

#[test]
fn every_error_names_its_place_and_shows_its_line() {
    for pair in include_str!("faults.txt").split("=== input\n").skip(1) {
        let input = pair.split("=== said\n").next().unwrap_or_default();
        for diagnostic in load(input).1.diagnostics.iter() {
            assert!(diagnostic.position.is_some() && diagnostic.excerpt.is_some(), "{diagnostic}\n{input}");
        }
    }
}
