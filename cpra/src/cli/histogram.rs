//! `cpra histogram FILE [FILE2]`: percentiles of what the daemon has written down, as a table, as text, and as a picture.
//!
//! It reads any interval log of HdrHistogram's whose values are microseconds, and puts the intervals of each tag together.
//! Everything that is shown is in milliseconds.

mod plot;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;

use self::plot::Curve;
use super::NOT_DONE;
use crate::config::nearest;
use crate::domain::outcome::bounded_text;
use crate::queueing::recording::{Distribution, Log, read};
use crate::units::limits::HISTOGRAM_FILE_MAX;

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// A log of histograms (.hlog)
    #[arg(value_name = "FILE")]
    pub file: PathBuf,

    /// Another one, to compare with the first
    #[arg(value_name = "FILE2")]
    pub other: Option<PathBuf>,

    /// Only this series; repeat it for more
    #[arg(long = "tag", value_name = "TAG")]
    pub tags: Vec<String>,

    /// Draw the percentiles into this file
    #[arg(long, value_name = "OUT.svg")]
    pub svg: Option<PathBuf>,

    /// Print the percentile distributions as HdrHistogram's plotter reads them, instead of the table
    #[arg(long)]
    pub hgrm: bool,
}

/// Letters of a tag or a file's name that are shown.
const NAME_MAX: usize = 80;

pub(super) fn histogram(args: &Args) -> ExitCode {
    match try_histogram(args) {
        Ok(text) => {
            // A closed pipe behind us changes nothing about the answer.
            let _ = std::io::stdout().lock().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = writeln!(std::io::stderr().lock(), "cpra: {error:#}");
            ExitCode::from(NOT_DONE)
        }
    }
}

/// One file, as it is shown.
struct Shown {
    name: Box<str>,
    log: Log,
}

fn try_histogram(args: &Args) -> anyhow::Result<String> {
    let paths = [Some(&args.file), args.other.as_ref()].into_iter().flatten();
    let files = paths.map(|path| load(path)).collect::<anyhow::Result<Vec<_>>>()?;
    let known: BTreeSet<&str> = files.iter().flat_map(|file| file.log.series.keys()).map(String::as_str).collect();
    if let Some(unknown) = args.tags.iter().find(|tag| !known.contains(tag.as_str())) {
        let meant = nearest(unknown, known.iter().copied());
        let meant = meant.map(|near| format!(", did you mean \"{}\"?", bounded_text(near, NAME_MAX)));
        let all: Vec<_> = known.iter().map(|tag| shown_tag(tag)).collect();
        anyhow::bail!(
            "there is no series \"{}\"{}\nthere are: {}",
            bounded_text(unknown, NAME_MAX),
            meant.unwrap_or_default(),
            all.join(", ")
        );
    }
    let tags: Vec<&str> =
        known.into_iter().filter(|tag| args.tags.is_empty() || args.tags.iter().any(|wanted| wanted == tag)).collect();
    if let Some(path) = &args.svg {
        let picture = plot::svg(&curves(&files, &tags)).context("cannot draw")?;
        std::fs::write(path, picture).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(if args.hgrm { texts(&files, &tags) } else { table(&files, &tags) })
}

fn load(path: &Path) -> anyhow::Result<Shown> {
    let name = path.display();
    let mut bytes = Vec::new();
    let file = File::open(path).with_context(|| format!("cannot open {name}"))?;
    file.take(HISTOGRAM_FILE_MAX + 1).read_to_end(&mut bytes).with_context(|| format!("cannot read {name}"))?;
    if bytes.len() as u64 > HISTOGRAM_FILE_MAX {
        anyhow::bail!("{name} has more than {} MiB: a log of the daemon has fewer", HISTOGRAM_FILE_MAX >> 20);
    }
    let log = read(&bytes).map_err(|error| anyhow::anyhow!("{name}:{}: {}", error.line, error.fault))?;
    if let Some(line) = log.torn {
        let mut stderr = std::io::stderr().lock();
        let _ =
            writeln!(stderr, "cpra: {name}:{line}: the last line is torn and is left out: its writer was interrupted");
    }
    if log.intervals == 0 {
        anyhow::bail!("{name} holds no interval");
    }
    Ok(Shown { name: bounded_text(&name.to_string(), NAME_MAX), log })
}

fn shown_tag(tag: &str) -> Box<str> {
    if tag.is_empty() { "(no tag)".into() } else { bounded_text(tag, NAME_MAX) }
}

const PERCENTILES: [(&str, f64); 6] =
    [("p50", 50.0), ("p90", 90.0), ("p95", 95.0), ("p99", 99.0), ("p99.9", 99.9), ("p99.99", 99.99)];

/// Mean, percentiles, maximum.
fn numbers(times: &Distribution) -> Vec<f64> {
    let percentiles = PERCENTILES.iter().map(|(_, percent)| times.percentile(*percent));
    [times.mean()].into_iter().chain(percentiles).chain([times.max()]).collect()
}

/// A row for each series; of two files three rows below the name of each.
fn table(files: &[Shown], tags: &[&str]) -> String {
    let mut rows = vec![
        ["milliseconds", "count", "mean"]
            .into_iter()
            .chain(PERCENTILES.map(|(name, _)| name))
            .chain(["max"])
            .map(str::to_owned)
            .collect::<Vec<_>>(),
    ];
    let row = |name: String, times: Option<&Distribution>| {
        let Some(times) = times else { return vec![name, "-".to_owned()] };
        let numbers = numbers(times).into_iter().map(|millis| format!("{millis:.3}"));
        [name, times.count().to_string()].into_iter().chain(numbers).collect()
    };
    for tag in tags {
        if let [file] = files {
            rows.push(row(shown_tag(tag).into(), file.log.series.get(*tag)));
            continue;
        }
        rows.push(vec![shown_tag(tag).into()]);
        rows.extend(files.iter().map(|file| row(format!("  {}", file.name), file.log.series.get(*tag))));
        let both: Option<Vec<_>> = files.iter().map(|file| file.log.series.get(*tag)).collect();
        if let Some([first, second]) = both.as_deref() {
            let ratio = |before: f64, after: f64| {
                if before > 0.0 { format!("{:.2}x", after / before) } else { "-".to_owned() }
            };
            let ratios = numbers(first).into_iter().zip(numbers(second)).map(|(before, after)| ratio(before, after));
            let count = ratio(first.count() as f64, second.count() as f64);
            rows.push(["  ratio".to_owned(), count].into_iter().chain(ratios).collect());
        }
    }
    aligned(&rows)
}

/// Names to the left, numbers to the right.
fn aligned(rows: &[Vec<String>]) -> String {
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let width = width(column).unwrap_or(0);
            let _ = if column == 0 { write!(line, "{cell:<width$}") } else { write!(line, "  {cell:>width$}") };
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn texts(files: &[Shown], tags: &[&str]) -> String {
    let mut text = String::new();
    for file in files {
        for tag in tags {
            let Some(times) = file.log.series.get(*tag) else { continue };
            let _ = writeln!(text, "#{} {}", file.name, shown_tag(tag));
            text.push_str(&times.text());
        }
    }
    text
}

fn curves(files: &[Shown], tags: &[&str]) -> Vec<Curve> {
    let mut curves = Vec::new();
    for (color, tag) in tags.iter().enumerate() {
        for (number, file) in files.iter().enumerate() {
            let Some(times) = file.log.series.get(*tag) else { continue };
            let tag = shown_tag(tag);
            let name = if files.len() > 1 { format!("{tag} ({})", file.name) } else { tag.into() };
            let steps = times.steps().map(|step| (step.quantile, step.millis)).collect();
            curves.push(Curve { name, color, is_dashed: number > 0, count: times.count(), steps });
        }
    }
    curves
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queueing::recording::{Gathered, Measure, Recording, header};
    use crate::units::{Span, Timestamp};

    fn log(count: u64, factor: u64) -> String {
        let mut recording = Recording::new("pulse", ["tcp", "http"]);
        (1..=count).for_each(|n| recording.record(1, Measure::Service, Span::from_micros(n * factor)));
        recording.record(0, Measure::Result, Span::from_millis(5));
        let mut gathered = Gathered::default();
        gathered.take(&mut recording);
        header("a test", Timestamp::default()) + &gathered.log_lines(Timestamp::default(), Span::from_secs(1))
    }

    fn args(folder: &Path, names: &[&str]) -> Args {
        let mut paths = names.iter().map(|name| folder.join(name));
        let file = paths.next().expect("a file");
        Args { file, other: paths.next(), tags: Vec::new(), svg: None, hgrm: false }
    }

    #[test]
    fn one_file_is_a_row_for_each_series() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("a"), log(1_000, 10)).expect("written");
        let said = try_histogram(&args(folder.path(), &["a"])).expect("it is sound");
        let rows: Vec<Vec<&str>> = said.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows[0], ["milliseconds", "count", "mean", "p50", "p90", "p95", "p99", "p99.9", "p99.99", "max"]);
        let row = ["1000", "5.006", "5.003", "9.007", "9.503", "9.903", "9.991", "10.007", "10.007"];
        assert_eq!(rows[1], [["pulse-http-service"].as_slice(), &row].concat());
        assert_eq!(rows[2][..2], ["pulse-tcp-result", "1"]);
        assert!(said.lines().all(|line| line.chars().count() <= 120), "{said}");
        let only = Args { tags: vec!["pulse-tcp-result".to_owned()], ..args(folder.path(), &["a"]) };
        assert_eq!(try_histogram(&only).expect("there is one").lines().count(), 2);
    }

    #[test]
    fn two_files_are_compared() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("a"), log(1_000, 10)).expect("written");
        let second = log(2_000, 10);
        let only_http: String =
            second.lines().filter(|line| !line.contains("tcp")).map(|line| format!("{line}\n")).collect();
        std::fs::write(folder.path().join("b"), only_http).expect("written");
        let said = try_histogram(&args(folder.path(), &["a", "b"])).expect("they are sound");
        let ratio = said.lines().find(|line| line.starts_with("  ratio")).expect("both have one");
        assert!(ratio.split_whitespace().nth(1) == Some("2.00x") && ratio.trim_end().ends_with("2.00x"), "{said}");
        assert_eq!(said.matches("ratio").count(), 1, "one file alone has no ratio: {said}");
        assert!(said.lines().last().is_some_and(|line| line.ends_with('-')), "{said}");
    }

    #[test]
    fn what_cannot_be_shown_is_told_with_its_place() {
        let folder = tempfile::tempdir().expect("a folder");
        let refused = |text: &str, tag: &str| {
            std::fs::write(folder.path().join("a"), text).expect("written");
            let tags = if tag.is_empty() { vec![] } else { vec![tag.to_owned()] };
            format!("{:#}", try_histogram(&Args { tags, ..args(folder.path(), &["a"]) }).expect_err(text))
        };
        assert!(refused("garbage\n", "").contains("/a:1: this is no interval"));
        assert!(refused("#nothing\n", "").contains("/a holds no interval"));
        let near = refused(&log(1, 1), "pulse-htp-service");
        assert!(near.contains("did you mean \"pulse-http-service\"?") && near.contains("pulse-tcp-result"), "{near}");
        let missing = format!("{:#}", try_histogram(&args(folder.path(), &["no"])).map(|_| ()).expect_err("no file"));
        assert!(missing.contains("cannot open") && missing.contains("No such file"), "{missing}");
    }

    #[test]
    fn texts_and_pictures_have_every_series() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("a"), log(1_000, 10)).expect("written");
        let svg = folder.path().join("a.svg");
        let wanted = Args { hgrm: true, svg: Some(svg.clone()), ..args(folder.path(), &["a", "a"]) };
        let said = try_histogram(&wanted).expect("it is sound");
        assert_eq!((said.matches("1/(1-Percentile)").count(), said.matches("#[Mean").count()), (4, 4));
        let picture = std::fs::read_to_string(svg).expect("it is drawn");
        assert!(picture.starts_with("<svg") && picture.trim_end().ends_with("</svg>"), "{picture}");
        for text in ["pulse-http-service", "pulse-tcp-result", "99.9%", "milliseconds"] {
            assert!(picture.contains(text), "{text}");
        }
    }
}
