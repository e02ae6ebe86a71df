//! `cargo xtask bench steps`: whether pulse sizes itself. The daemon on the real ring, through steps of what is due and of
//! how long answers take, looked at ten times a second.
//!
//! Hypothesis: within five seconds of every step 95 of 100 results come within 100 ms of their due time (where answers
//! alone take longer, as many checks start within 10 ms), and the number of workers then stays where it is. Everything
//! counts from the due time, so that what the daemon omits or delays shows.
//!
//! Daemon and servers are threads of this process, on loopback in a network namespace of its own where that is allowed.

use std::fmt::Write as _;
use std::ops::Range;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use cpra::domain::{Monitor, Policy};
use cpra::os::clock::Clock;
use cpra::queueing::Setup;
use cpra::queueing::solver::Bounds;
use cpra::units::{Instant, Span};
use plotters::prelude::*;

use super::{child, pulse};
use crate::live::crowd::Crowd;
use crate::live::watch::{Log, Promise, Watch, percentile};
use crate::live::{Running, http, monitor};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Checks a second, at first and in the end of the steps of the rate
    #[arg(long, default_value_t = 1_000)]
    few: usize,
    /// ... and in between
    #[arg(long, default_value_t = 20_000)]
    many: usize,
    /// Checks a second while answers take longer
    #[arg(long, default_value_t = 5_000)]
    steady: usize,
    /// Milliseconds until an answer, in between
    #[arg(long, default_value_t = 200)]
    slow: u64,
    /// New connections, instead of kept ones
    #[arg(long)]
    connect: bool,
    /// The most workers
    #[arg(long, default_value_t = 50_000)]
    max_workers: u32,
    /// The length of every stretch, in hundredths
    #[arg(long, default_value_t = 100)]
    length: u64,
    /// Writes the plot
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Writes the samples
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Already built for release (set by the command itself)
    #[arg(long, hide = true)]
    built: bool,
}

const SERVERS: usize = 256;
const SHARE: f64 = 0.95;
const RECOVERY: Span = Span::from_secs(5);
/// What is left at the end of each stretch for the workers to stay as they are.
const REST: Span = Span::from_secs(4);
const FAST_MS: u64 = 1;
const CLASS: &str = "http";

/// What holds between two steps.
struct Stretch {
    rate: usize,
    answer_ms: u64,
    seconds: u64,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    if !options.built {
        return pulse::run_release();
    }
    child::raise_open_files()?;
    let namespace = pulse::enter_namespace();
    let machine = pulse::machine();
    println!("machine: {machine}; network: {}", namespace.as_deref().unwrap_or("a namespace of its own"));
    let &Options { few, many, steady, slow, .. } = options;
    let stretch = |rate, answer_ms, seconds: u64| Stretch { rate, answer_ms, seconds: seconds * options.length / 100 };
    let stretches = [
        stretch(few, FAST_MS, 20),
        stretch(many, FAST_MS, 20),
        stretch(few, FAST_MS, 30),
        stretch(steady, FAST_MS, 15),
        stretch(steady, slow, 20),
        stretch(steady, FAST_MS, 30),
    ];
    let (log, times) = walk(options, &stretches)?;
    let start = times[0].start;
    if let Some(path) = &options.csv {
        std::fs::write(path, csv(&log, start)).with_context(|| format!("cannot write {}", path.display()))?;
    }
    if let Some(path) = &options.svg {
        draw(&log, &times, path).map_err(|error| anyhow::anyhow!("cannot draw {}: {error}", path.display()))?;
    }
    let faults = judge(&log, &stretches, &times);
    if !faults.is_empty() {
        bail!(faults.join("\n"));
    }
    Ok(())
}

/// Through all stretches.
fn walk(options: &Options, stretches: &[Stretch]) -> anyhow::Result<(Log, Vec<Range<Instant>>)> {
    let crowd = Crowd::start(SERVERS)?;
    crowd.set_delay(Span::from_millis(FAST_MS));
    let most = stretches.iter().map(|stretch| stretch.rate).max().unwrap_or(0);
    let mut enabled = stretches[0].rate;
    let policy = Policy::new(http(!options.connect), Span::from_secs(1), Span::from_secs(1));
    let name = |index: usize| format!("web/{index}");
    let one = |index: usize| -> Monitor {
        monitor(&name(index), index < enabled, crowd.address(index % crowd.len()), "/", policy.clone())
    };
    let setup = Setup::default();
    let setup = Setup { bounds: Bounds { min: 4, max: options.max_workers, ..setup.bounds }, ..setup };
    let monitors = (0..most).map(one).collect();
    let running = quietly(|| Running::start(monitors, setup, &std::env::temp_dir()))?;
    let ids = running.ids((0..most).map(name));
    let watch = Watch::start(running.source.clone());
    let mut times = Vec::new();
    for &Stretch { rate, answer_ms, seconds } in stretches {
        let start = Clock.now();
        crowd.set_delay(Span::from_millis(answer_ms));
        running.switch(&ids[enabled.min(rate)..enabled.max(rate)], rate > enabled);
        enabled = rate;
        let end = start + Span::from_secs(seconds);
        std::thread::sleep(end.since(Clock.now()).into());
        times.push(start..end);
    }
    let log = watch.end();
    running.stop();
    Ok((log, times))
}

/// The daemon tells its story on standard output, and the table is to be seen there.
fn quietly<T>(start: impl FnOnce() -> T) -> anyhow::Result<T> {
    let stdout = std::io::stdout();
    let kept = stdout.as_fd().try_clone_to_owned()?;
    nix::unistd::dup2_stdout(std::fs::File::options().write(true).open("/dev/null")?)?;
    let started = start();
    nix::unistd::dup2_stdout(kept)?;
    Ok(started)
}

/// Prints a line for each stretch, and answers what is not as it should be.
fn judge(log: &Log, stretches: &[Stretch], times: &[Range<Instant>]) -> Vec<String> {
    println!(
        "\n| due | answers after | promise | held again after | kept since 5 s | workers since 5 s | in the last 4 s | solver | \
         erlangs | p95 measured | predicted |\n\
         | ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    );
    let mut faults = Vec::new();
    for (stretch, time) in stretches.iter().zip(times) {
        let what = format!("{}/s, {} ms", stretch.rate, stretch.answer_ms);
        let Some(report) = log.last_of(time, CLASS) else {
            faults.push(format!("{what}: {CLASS} is not sized"));
            continue;
        };
        let answer = report.answer;
        let promise = Promise::from(answer.goal);
        let (since, rest) = (time.start + RECOVERY..time.end, time.end.before(REST)..time.end);
        let counted = log.counted(&since);
        let held = log.held_after(time, promise, SHARE);
        let share = counted.share(promise).unwrap_or(f64::NAN);
        let (workers, resting) = (log.workers(&since), log.workers(&rest));
        let (name, bound, measured, predicted) = match promise {
            Promise::Result(bound) => ("result", bound, report.results.p95, answer.result),
            Promise::Wait(bound) => ("wait", bound, report.waits.p95, answer.wait),
        };
        println!(
            "| {:.0}/s | {} ms | {name} ≤ {bound} | {held} | {:.2} % | {}–{} | {}–{} | {} | {:.1} | {measured} | {:.1} ms |",
            counted.rate(),
            stretch.answer_ms,
            share * 100.0,
            workers.least,
            workers.most,
            resting.least,
            resting.most,
            answer.needed,
            answer.offered,
            predicted * 1e3,
        );
        if held > RECOVERY {
            faults.push(format!("{what}: the promise was still missed {held} after the step"));
        }
        if share.is_nan() || share < SHARE {
            faults.push(format!("{what}: {share:.3} kept {promise:?}"));
        }
        if resting.most > resting.least + (resting.least / 10).max(2) {
            faults.push(format!("{what}: the workers did not settle: {resting:?}"));
        }
        if (counted.rate() / stretch.rate as f64 - 1.0).abs() > 0.05 {
            faults.push(format!("{what}: {:.0}/s were done", counted.rate()));
        }
    }
    faults
}

/// A sample as it is written and drawn: the rates and percentiles of the half second before it.
struct Point {
    seconds: f64,
    rate: f64,
    workers: u32,
    busy: u32,
    needed: u32,
    waiting: u32,
    wait_ms: f64,
    result_ms: f64,
}

fn points(log: &Log, start: Instant) -> Vec<Point> {
    let window = Span::from_millis(500);
    let point = |sample: &crate::live::watch::Sample| {
        let counted = log.counted(&(sample.at.before(window)..sample.at + Span::from_nanos(1)));
        let (workers, busy) = sample.workers();
        let millis = |histogram| percentile(histogram, SHARE).unwrap_or(f64::NAN) * 1e3;
        Point {
            seconds: sample.at.since(start).as_secs_f64(),
            rate: counted.rate(),
            workers,
            busy,
            needed: sample.class(CLASS).map_or(0, |report| report.answer.needed),
            waiting: sample.stats.sizing.iter().map(|report| report.demand.waiting).sum(),
            wait_ms: millis(&counted.wait),
            result_ms: millis(&counted.result),
        }
    };
    log.0.iter().filter(|sample| sample.at.since(start) >= window).map(point).collect()
}

fn csv(log: &Log, start: Instant) -> String {
    let mut text = String::from("seconds,checks_per_second,workers,busy,needed,waiting,wait_p95_ms,result_p95_ms\n");
    for Point { seconds, rate, workers, busy, needed, waiting, wait_ms, result_ms } in points(log, start) {
        let _ =
            writeln!(text, "{seconds:.2},{rate:.0},{workers},{busy},{needed},{waiting},{wait_ms:.3},{result_ms:.3}");
    }
    text
}

/// Three panels over one time: what is done, who does it, how late it is.
fn draw(log: &Log, times: &[Range<Instant>], path: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let start = times[0].start;
    // Every other sample: the eye sees no more, and the file stays small.
    let points: Vec<Point> = points(log, start).into_iter().step_by(2).collect();
    let steps: Vec<f64> = times[1..].iter().map(|time| time.start.since(start).as_secs_f64()).collect();
    let root = SVGBackend::new(path, (960, 900)).into_drawing_area();
    root.fill(&WHITE)?;
    let [first, second, third] = &root.split_evenly((3, 1))[..] else { return Err("three panels".into()) };
    let (blue, red, green) = (RGBColor(31, 119, 180), RGBColor(214, 39, 40), RGBColor(44, 160, 44));
    let (pale_blue, pale_red) = (RGBColor(130, 180, 215), RGBColor(235, 150, 150));

    let highest = points.iter().map(|point| point.rate).fold(1.0, f64::max) * 1.1;
    let rates = [Line { name: "done", color: blue, of: &|point: &Point| point.rate }];
    Panel { title: "Checks per second", range: 0.0..highest, log: false, lines: &rates }
        .draw(first, &points, &steps)?;

    let most = points.iter().map(|point| point.workers).max().unwrap_or(1);
    let workers = [
        Line { name: "allowed", color: blue, of: &|point: &Point| f64::from(point.workers) },
        Line { name: "the solver's least", color: green, of: &|point: &Point| f64::from(point.needed) },
        Line { name: "busy", color: red, of: &|point: &Point| f64::from(point.busy) },
    ];
    Panel { title: "Workers", range: 1.0..f64::from(most) * 2.0, log: true, lines: &workers }
        .draw(second, &points, &steps)?;

    let times = [
        Line { name: "promised: 100 ms", color: pale_blue, of: &|_: &Point| 100.0 },
        Line { name: "due to result", color: blue, of: &|point: &Point| point.result_ms },
        Line { name: "promised where answers take longer: 10 ms", color: pale_red, of: &|_: &Point| 10.0 },
        Line { name: "due to start", color: red, of: &|point: &Point| point.wait_ms },
    ];
    Panel { title: "p95 of half a second, ms", range: 0.01..1_000.0, log: true, lines: &times }
        .draw(third, &points, &steps)?;
    root.present()?;
    Ok(())
}

struct Line<'a> {
    name: &'a str,
    color: RGBColor,
    of: &'a dyn Fn(&Point) -> f64,
}

struct Panel<'a> {
    title: &'a str,
    range: Range<f64>,
    log: bool,
    lines: &'a [Line<'a>],
}

impl Panel<'_> {
    /// With an upright at each of the `steps`.
    fn draw(
        &self,
        area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
        points: &[Point],
        steps: &[f64],
    ) -> Result<(), Box<dyn std::error::Error>> {
        let height = |value: f64| if self.log { value.max(self.range.start).log10() } else { value };
        let (low, high) = (height(self.range.start), height(self.range.end));
        let seconds = points.last().map_or(1.0, |point| point.seconds);
        // Title and legend stand above the panel, where they hide nothing. Letters are about this wide.
        let mut left = 64;
        let heading = [(self.title, BLACK)].into_iter().chain(self.lines.iter().map(|line| (line.name, line.color)));
        for (text, color) in heading {
            area.draw(&Text::new(text, (left, 8), ("sans-serif", 16).into_font().color(&color)))?;
            left += text.len() as i32 * LETTER + 24;
        }
        let mut chart = ChartBuilder::on(area)
            .margin(8)
            .margin_top(30)
            .x_label_area_size(24)
            .y_label_area_size(56)
            .build_cartesian_2d(0.0..seconds, low..high)?;
        let label = |value: &f64| if self.log { format!("{}", 10_f64.powf(*value)) } else { format!("{value:.0}") };
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(RGBColor(225, 225, 225))
            .x_labels(12)
            // Logarithms are whole numbers.
            .y_labels(if self.log { (high - low) as usize + 1 } else { 6 })
            .x_label_formatter(&|value| format!("{value:.0} s"))
            .y_label_formatter(&label)
            .draw()?;
        for &step in steps {
            chart.draw_series([PathElement::new([(step, low), (step, high)], RGBColor(170, 170, 170))])?;
        }
        for &Line { color, of, .. } in self.lines {
            let drawn = points.iter().map(|point| (point.seconds, of(point))).filter(|(_, value)| value.is_finite());
            chart.draw_series(LineSeries::new(drawn.map(|(seconds, value)| (seconds, height(value))), color))?;
        }
        Ok(())
    }
}

/// The width of a letter of the headings.
const LETTER: i32 = 7;
