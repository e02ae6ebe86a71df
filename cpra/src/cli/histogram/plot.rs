//! The picture: time over percentile, each nine as far from the last one as that from the one before. The only place that
//! names plotters.

use plotters::prelude::*;

const SIZE: (u32, u32) = (1_100, 620);
const FONT: &str = "sans-serif";
/// Nines beyond which nobody counts.
const NINES_MAX: f64 = 9.0;

/// One series of one file.
pub(super) struct Curve {
    pub(super) name: String,
    /// Those of one number have one color.
    pub(super) color: usize,
    pub(super) is_dashed: bool,
    pub(super) count: u64,
    /// Quantiles from 0 to 1, and milliseconds.
    pub(super) steps: Vec<(f64, f64)>,
}

impl Curve {
    /// Nines and milliseconds. The last step, of all of them, stands where one of as many is.
    fn points(&self) -> Vec<(f64, f64)> {
        let last = nines(1.0 - 1.0 / self.count.max(1) as f64);
        self.steps.iter().map(|&(quantile, millis)| (nines(quantile).min(last), millis)).collect()
    }
}

/// 0.9 is one, 0.99 is two.
fn nines(quantile: f64) -> f64 {
    (1.0 / (1.0 - quantile)).log10().min(NINES_MAX)
}

/// `99.9%` for three.
fn percent(nines: f64) -> String {
    match nines.round() as usize {
        0 => "0%".to_owned(),
        1 => "90%".to_owned(),
        2 => "99%".to_owned(),
        more => format!("99.{}%", "9".repeat(more - 2)),
    }
}

/// `0.25`, `10`.
fn plain(millis: f64) -> String {
    format!("{millis:.3}").trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A picture of the curves.
pub(super) fn svg(curves: &[Curve]) -> anyhow::Result<String> {
    let points: Vec<Vec<(f64, f64)>> = curves.iter().map(Curve::points).collect();
    let most = |of: fn(&(f64, f64)) -> f64| points.iter().flatten().map(of).fold(0.0, f64::max);
    let right = most(|point| point.0).ceil().max(1.0);
    let top = (most(|point| point.1) * 1.05).max(0.001);
    let mut picture = String::new();
    {
        let area = SVGBackend::with_string(&mut picture, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .margin(16)
            .x_label_area_size(44)
            .y_label_area_size(72)
            .build_cartesian_2d(0.0..right, 0.0..top)?;
        chart
            .configure_mesh()
            .x_desc("percentile")
            .y_desc("milliseconds")
            .x_labels(right as usize + 1)
            .x_label_formatter(&|nines| percent(*nines))
            .y_label_formatter(&|millis| plain(*millis))
            .label_style((FONT, 14))
            .axis_desc_style((FONT, 15))
            .max_light_lines(0)
            .draw()?;
        for (curve, points) in curves.iter().zip(points) {
            let style = Palette99::pick(curve.color).stroke_width(2);
            let drawn = if curve.is_dashed {
                chart.draw_series(DashedLineSeries::new(points, 6, 4, style))?
            } else {
                chart.draw_series(LineSeries::new(points, style))?
            };
            let sample = move |(x, y)| PathElement::new([(x, y), (x + 20, y)], style);
            drawn
                .label(if curve.is_dashed { format!("{} - -", curve.name) } else { curve.name.clone() })
                .legend(sample);
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .label_font((FONT, 14))
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK.mix(0.3))
            .draw()?;
        area.present()?;
    }
    Ok(picture)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nines_are_told_as_percentages() {
        assert_eq!([0.0, 1.0, 2.0, 3.0, 5.0].map(percent), ["0%", "90%", "99%", "99.9%", "99.999%"]);
        assert!((nines(0.99) - 2.0).abs() < 1e-9 && nines(0.0) == 0.0);
        assert_eq!(nines(1.0), NINES_MAX);
        assert_eq!([0.0, 0.25, 10.0, 0.1 + 0.2].map(plain), ["0", "0.25", "10", "0.3"]);
    }

    #[test]
    fn whatever_is_drawn_is_a_picture() {
        let curve = |name: &str, count, steps: Vec<(f64, f64)>| Curve {
            name: name.to_owned(),
            color: 1_000,
            is_dashed: false,
            count,
            steps,
        };
        for curves in [
            vec![],
            vec![curve("one", 1, vec![(0.0, 5.0), (1.0, 5.0)])],
            vec![curve("none", 0, vec![])],
            vec![curve("<&\">", 10, vec![(0.0, 0.0), (1.0, 0.0)])],
        ] {
            let picture = svg(&curves).expect("it can be drawn");
            assert!(picture.starts_with("<svg") && !picture.contains("<&") && !picture.contains("NaN"), "{picture}");
        }
        let beyond = curve("x", 1_000, vec![(0.0, 1.0), (0.9999, 2.0), (1.0, 2.0)]).points();
        assert!(beyond.iter().all(|point| point.0 <= 3.0 + 1e-9) && beyond.is_sorted_by_key(|point| point.0));
    }
}
