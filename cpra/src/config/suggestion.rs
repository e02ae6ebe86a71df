//! "Did you mean": the candidate that is nearest to what was written.

/// The candidate within an edit distance of a third of the word's length (at least 1), if there is one.
pub fn nearest<'a>(written: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    const WORD_MAX: usize = 48;
    let written: Vec<char> = written.chars().take(WORD_MAX + 1).flat_map(char::to_lowercase).collect();
    if written.is_empty() || written.len() > WORD_MAX {
        return None;
    }
    let allowed = (written.len() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (distance(&written, candidate), candidate))
        // A word of which nothing would remain is no suggestion.
        .filter(|&(distance, candidate)| distance <= allowed && distance < candidate.chars().count())
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, candidate)| candidate)
}

/// `, did you mean "x"?`, or nothing.
pub(super) fn did_you_mean<'a>(written: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(written, candidates).map(|candidate| format!(", did you mean \"{candidate}\"?"))
}

/// Keys of the blackbox exporter, which many files come from, and what they are called here.
pub(super) const ELSEWHERE: [(&str, &str); 12] = [
    ("prober", "type"),
    ("scrape_interval", "interval"),
    ("valid_status_codes", "expected_status"),
    ("fail_if_body_not_matches_regexp", "regex"),
    ("fail_if_body_matches_regexp", "not_regex"),
    ("fail_if_header_not_matches", "expected_headers"),
    ("tls_config", "tls"),
    ("proxy_url", "proxy"),
    ("body_size_limit", "body_max"),
    ("query_name", "name"),
    ("query_type", "record"),
    ("validate_answer_rrs", "expect"),
];

/// What a key of another program is called here.
pub(super) fn elsewhere(written: &str) -> Option<&'static str> {
    ELSEWHERE.iter().find(|(theirs, _)| *theirs == written).map(|(_, ours)| *ours)
}

/// Optimal string alignment: insertions, deletions, substitutions and swaps of neighbours.
fn distance(written: &[char], candidate: &str) -> usize {
    let candidate: Vec<char> = candidate.chars().flat_map(char::to_lowercase).collect();
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=candidate.len()).collect();
    for (row, &ours) in written.iter().enumerate() {
        let mut current = vec![row + 1];
        for (column, &theirs) in candidate.iter().enumerate() {
            let mut cost =
                (above[column + 1] + 1).min(current[column] + 1).min(above[column] + usize::from(ours != theirs));
            let swapped = row > 0 && column > 0 && ours == candidate[column - 1] && written[row - 1] == theirs;
            if swapped {
                cost = cost.min(before[column - 1] + 1);
            }
            current.push(cost);
        }
        before = std::mem::replace(&mut above, current);
    }
    above[candidate.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typing_errors_find_their_word() {
        let keys = ["interval", "timeout", "type", "url", "host"];
        for (written, expected) in [
            ("intervall", Some("interval")),
            ("Interval", Some("interval")),
            ("itnerval", Some("interval")),
            ("time-out", Some("timeout")),
            ("typ", Some("type")),
            ("uri", Some("url")),
            ("colour", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(nearest(written, keys), expected, "{written}");
        }
    }
}
