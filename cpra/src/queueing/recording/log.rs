//! HdrHistogram's interval log, version 1.3: a text file with a line for each series of each interval.
//!
//! ```text
//! #[Histogram log format version 1.3]
//! #[StartTime: 1795371203.412 (seconds since epoch), 2026-11-22T18:13:23Z]
//! "StartTimestamp","Interval_Length","Interval_Max","Interval_Compressed_Histogram"
//! Tag=pulse-http-service,1795371203.412,60.000,12.431,HISTFAAAAEV42pNpm...
//! ```
//! The last field is a histogram in the V2 encoding, compressed, in base64. Its values are microseconds; the maximum
//! before it is there for people, in milliseconds. Times of intervals are seconds since 1970: a log can be appended to by
//! a later process, without looking at its beginning.

use std::collections::BTreeMap;
use std::io::Read as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::read::ZlibDecoder;
use hdrhistogram::serialization::{Deserializer, Serializer as _, V2DeflateSerializer};

use super::Distribution;
use crate::units::limits::HISTOGRAM_BYTES_MAX;
use crate::units::{Span, Timestamp};

/// What the two encodings begin with.
const COMPRESSED: &[u8] = &[0x1c, 0x84, 0x93, 0x14];
const PLAIN: &[u8] = &[0x1c, 0x84, 0x93, 0x13];
/// Bytes before the counts.
const PLAIN_HEAD: usize = 40;

/// Counts are told apart up to here, in sums and in fractions of them.
const COUNT_MAX: u64 = 1 << 53;

/// What a log begins with. `writer` tells people where it comes from.
pub fn header(writer: &str, start: Timestamp) -> String {
    // One line, whatever somebody named his daemon.
    let writer: String = writer.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    format!(
        "#[Histogram log format version 1.3]\n#[{writer}; values are in microseconds, Interval_Max in milliseconds]\n\
         #[StartTime: {} (seconds since epoch), {start}]\n\
         \"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"\n",
        Seconds(start)
    )
}

/// Seconds since 1970 with three digits; zero before.
struct Seconds(Timestamp);

impl std::fmt::Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let millis = self.0.as_millis_unsigned();
        write!(f, "{}.{:03}", millis / 1_000, millis % 1_000)
    }
}

/// The shortest interval a log can tell: times have three digits.
const SHORTEST: f64 = 0.001;

/// One series of one interval. One that ends within its first millisecond, because two people asked at once, is a
/// millisecond long all the same: readers divide by its length.
pub(super) fn line(tag: &str, start: Timestamp, length: Span, distribution: &Distribution) -> String {
    let mut bytes = Vec::new();
    V2DeflateSerializer::new()
        .serialize(distribution.histogram(), &mut bytes)
        .expect("memory takes everything, and counts end where the encoding does");
    let length = length.as_secs_f64().max(SHORTEST);
    let mut line = format!("Tag={tag},{},{length:.3},{:.3},", Seconds(start), distribution.max());
    STANDARD.encode_string(&bytes, &mut line);
    line.push('\n');
    line
}

/// What a log holds: the intervals of each tag put together.
#[derive(Debug, Default)]
pub struct Log {
    /// By tag; `""` is what has none.
    pub series: BTreeMap<String, Distribution>,
    pub intervals: usize,
    /// The last line had no end and no sense: whoever wrote it was interrupted.
    pub torn: Option<usize>,
}

/// Why a log cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("line {line}: {fault}")]
pub struct LogError {
    pub line: usize,
    pub fault: LogFault,
}

#[derive(Debug, thiserror::Error)]
pub enum LogFault {
    #[error("this is no interval of a histogram log (\"Tag=NAME,start,length,max,histogram\")")]
    Shape,
    #[error("the histogram is not in base64: {0}")]
    Base64(#[from] base64::DecodeError),
    #[error("the histogram is cut, or is not in the V2 encoding")]
    Encoding,
    #[error("the histogram has more than {} MiB", HISTOGRAM_BYTES_MAX >> 20)]
    Large,
    #[error("more times are counted than anybody can have measured")]
    Counts,
}

/// Reads a log.
///
/// # Errors
/// At the first line that makes no sense, but for a last one without an end.
pub fn read(bytes: &[u8]) -> Result<Log, LogError> {
    let mut log = Log::default();
    let mut number = 0;
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        number += 1;
        let ended = line.ends_with(b"\n");
        match read_line(line.trim_ascii_end()) {
            Ok(None) => {}
            Ok(Some((tag, distribution))) => {
                log.intervals += 1;
                let sum = match log.series.get_mut(tag) {
                    Some(sum) => {
                        sum.add(&distribution);
                        sum.count()
                    }
                    None => log.series.entry(tag.to_owned()).or_insert(distribution).count(),
                };
                if sum > COUNT_MAX {
                    return Err(LogError { line: number, fault: LogFault::Counts });
                }
            }
            Err(_) if !ended && number > 1 => log.torn = Some(number),
            Err(fault) => return Err(LogError { line: number, fault }),
        }
    }
    Ok(log)
}

/// The tag and the histogram of a line that has some.
fn read_line(line: &[u8]) -> Result<Option<(&str, Distribution)>, LogFault> {
    if line.is_empty() || line.starts_with(b"#") || line.starts_with(b"\"StartTimestamp\"") {
        return Ok(None);
    }
    let line = std::str::from_utf8(line).map_err(|_| LogFault::Shape)?;
    let (tag, rest) = match line.strip_prefix("Tag=") {
        Some(tagged) => tagged.split_once(',').ok_or(LogFault::Shape)?,
        None => ("", line),
    };
    let mut fields = rest.splitn(4, ',');
    let numbers = fields.by_ref().take(3).filter(|field| field.trim().parse::<f64>().is_ok()).count();
    let (3, Some(histogram)) = (numbers, fields.next()) else { return Err(LogFault::Shape) };
    Ok(Some((tag, decode(histogram.trim())?)))
}

fn decode(text: &str) -> Result<Distribution, LogFault> {
    let bytes = STANDARD.decode(text)?;
    let plain = match bytes.split_at_checked(8) {
        Some((head, body)) if head.starts_with(COMPRESSED) => {
            let mut plain = Vec::new();
            // A few bytes can unfold to gigabytes.
            let read = ZlibDecoder::new(body).take(HISTOGRAM_BYTES_MAX + 1).read_to_end(&mut plain);
            read.map_err(|_| LogFault::Encoding)?;
            plain
        }
        _ => bytes,
    };
    if plain.len() as u64 > HISTOGRAM_BYTES_MAX {
        return Err(LogFault::Large);
    }
    // The decoder makes room for as much as the length says: so it must be there.
    let length = plain.get(4..8).and_then(|length| length.try_into().ok()).map(u32::from_be_bytes);
    let is_whole = length.is_some_and(|length| plain.len().checked_sub(PLAIN_HEAD) == Some(length as usize));
    if !plain.starts_with(PLAIN) || !is_whole {
        return Err(LogFault::Encoding);
    }
    if !numbers_are_sane(&plain[PLAIN_HEAD..]) {
        return Err(LogFault::Counts);
    }
    let histogram = Deserializer::new().deserialize(&mut plain.as_slice()).map_err(|_| LogFault::Encoding)?;
    let distribution = Distribution::of(histogram);
    if distribution.count() > COUNT_MAX { Err(LogFault::Counts) } else { Ok(distribution) }
}

/// Whether counts, and runs of empty places (as negative numbers), are of a size that the decoder can bear: it computes with
/// them before it looks at them.
fn numbers_are_sane(bytes: &[u8]) -> bool {
    // 7 bits a byte, the least first, and all 8 of a ninth; the lowest bit is the sign.
    let (mut number, mut length) = (0, 0);
    bytes.iter().all(|&byte| {
        let is_last = length == 8 || byte < 0x80;
        let bits = if length == 8 { byte } else { byte & 0x7f };
        number |= u64::from(bits) << (7 * length);
        length += 1;
        if !is_last {
            return true;
        }
        length = 0;
        std::mem::take(&mut number) >> 1 <= COUNT_MAX
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queueing::recording::{Gathered, Measure, Recording};

    const START: Timestamp = Timestamp::from_micros(1_795_371_203_412_345);

    fn gathered(seed: u64) -> Gathered {
        let mut recording = Recording::new("pulse", ["tcp", "http"]);
        let mut rng = fastrand::Rng::with_seed(seed);
        for _ in 0..500 {
            recording.record(0, Measure::Service, Span::from_micros(rng.u64(1..100)));
            recording.record(1, Measure::Result, Span::from_micros(1 << rng.u32(0..31)));
        }
        let mut gathered = Gathered::default();
        gathered.take(&mut recording);
        gathered
    }

    fn log_of(parts: &[Gathered]) -> String {
        let mut log = header("cpra, instance a\nb", START);
        for gathered in parts {
            log.push_str(&gathered.log_lines(START, Span::from_millis(60_001)));
        }
        log
    }

    #[test]
    fn what_is_written_is_read_again_value_by_value() {
        let (first, second) = (gathered(1), gathered(2));
        let text = log_of(&[gathered(1), gathered(2)]);
        assert!(text.contains("#[StartTime: 1795371203.412 (seconds since epoch), 2026-"), "{text}");
        assert!(text.contains("\nTag=pulse-http-result,1795371203.412,60.001,"), "{text}");
        let log = read(text.as_bytes()).expect("it is sound");
        assert_eq!((log.intervals, log.torn), (4, None));
        assert_eq!(log.series.keys().collect::<Vec<_>>(), ["pulse-http-result", "pulse-tcp-service"]);
        for ((tag, one), (_, other)) in first.series().zip(second.series()) {
            let mut sum = one.clone();
            sum.add(other);
            assert_eq!(log.series[&tag.to_string()], sum);
        }
    }

    #[test]
    fn an_interval_that_ends_at_once_is_a_millisecond_long() {
        let text = gathered(1).log_lines(START, Span::from_micros(20));
        assert!(!text.is_empty() && text.lines().all(|line| line.contains(",0.001,")), "{text}");
    }

    #[test]
    fn a_line_without_an_end_is_told_and_all_else_is_read() {
        let whole = log_of(&[gathered(1)]);
        let count = |log: &Log| log.series.values().map(Distribution::count).sum::<u64>();
        // Without the last newline, nothing is missing yet.
        let log = read(whole.trim_end().as_bytes()).expect("it is sound");
        assert_eq!((log.torn, count(&log)), (None, 1_000));
        let last = whole.trim_end().rfind('\n').expect("lines") + 1;
        for cut in last + 1..whole.len() - 1 {
            let log = read(&whole.as_bytes()[..cut]).unwrap_or_else(|error| panic!("{cut}: {error}"));
            assert_eq!((log.torn, count(&log)), (Some(6), 500), "{cut}");
        }
    }

    #[test]
    fn garbage_is_refused_with_its_line() {
        let sound = log_of(&[gathered(1)]);
        let refused = |text: &str| read(text.as_bytes()).expect_err(text).to_string();
        assert!(refused("hello").starts_with("line 1: this is no interval"));
        assert!(refused(&format!("{sound}\n\nx,y\n")).starts_with("line 9: this is no interval"));
        assert!(
            refused(&format!("{sound}Tag=a,1.0,1.0,1.0,!!\n")).starts_with("line 7: the histogram is not in base64")
        );
        assert!(refused(&format!("{sound}Tag=a,1.0,x,1.0,AAAA\n")).starts_with("line 7: this is no interval"));
        assert!(refused(&format!("{sound}1,1,1,AAAA\n")).starts_with("line 7: the histogram is cut"));
        assert!(refused(&format!("{sound}1,1,1,\n")).starts_with("line 7: the histogram is cut"));
        assert!(read(b"\xff\xfe\n").is_err());
        // No byte of a histogram makes it more than an error when it is another one.
        let line = sound.lines().last().expect("an interval");
        let (head, encoded) = line.rsplit_once(',').expect("fields");
        let bytes = STANDARD.decode(encoded).expect("base64");
        for at in 0..bytes.len() {
            let mut broken = bytes.clone();
            broken[at] ^= 0x55;
            let _ = read(format!("{head},{}\n", STANDARD.encode(&broken)).as_bytes());
        }
    }

    #[test]
    fn whatever_decodes_can_be_shown() {
        let mut rng = fastrand::Rng::with_seed(11);
        let mut shown = 0;
        for round in 0..5_000 {
            let high = 1_u64 << rng.u32(1..64) | rng.u64(..) >> rng.u32(0..64);
            let low = 1 + rng.u64(0..high / 2 + 1) / (1 << rng.u32(0..63));
            let length = rng.usize(0..40);
            let mut counts: Vec<u8> = (0..length).map(|_| rng.u8(..) >> rng.u32(0..8)).collect();
            if round % 3 == 0 {
                counts.extend([0xff; 8].iter().chain(&[rng.u8(..)]));
            }
            let mut plain =
                [PLAIN, &(counts.len() as u32).to_be_bytes(), &[0; 4], &rng.u32(0..4).to_be_bytes()].concat();
            plain.extend([low, high, 1.0_f64.to_bits()].map(u64::to_be_bytes).as_flattened());
            plain.extend(counts);
            let line = format!("Tag=a,1,1,1,{}\n", STANDARD.encode(&plain));
            let Ok(log) = read([line.as_str(), &line].concat().as_bytes()) else { continue };
            for times in log.series.values() {
                shown += 1;
                let _ = (times.text(), times.mean(), times.max(), times.percentile(99.0), times.recorded().count());
            }
        }
        assert!(shown > 100, "{shown}");
    }

    #[test]
    fn a_small_line_does_not_unfold_to_gigabytes() {
        use std::io::Write as _;
        let mut body = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
        for _ in 0..=HISTOGRAM_BYTES_MAX >> 20 {
            body.write_all(&[0; 1 << 20]).expect("memory");
        }
        let bytes = [COMPRESSED, &[0, 0, 0, 0], &body.finish().expect("memory")].concat();
        let error = read(format!("1,1,1,{}\n", STANDARD.encode(&bytes)).as_bytes()).expect_err("a bomb").fault;
        assert!(matches!(error, LogFault::Large), "{error}");
        // A head that promises four gigabytes, and holds nothing.
        let head = [PLAIN, &[0xff; 36]].concat();
        assert!(read(format!("1,1,1,{}\n", STANDARD.encode(&head)).as_bytes()).is_err());
    }
}
