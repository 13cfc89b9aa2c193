//! Plots as SVG. Lines are drawn in a square that is stretched to whatever room there is, and the words around them are
//! HTML, so that a plot is as sharp and as readable on a phone as on a wide screen, without a script.

use std::fmt::Write;

use super::verdict::decimal;

/// The height and width of the square.
const SIDE: f64 = 1_000.0;
/// About how many labels an axis has.
const LABELS: f64 = 5.0;

/// A line of a plot: points with gaps where nothing is known.
pub(super) struct Series {
    /// What it shows.
    pub(super) name: String,
    /// Its colour: a class of the style sheet.
    pub(super) class: &'static str,
    /// Its points, in order.
    pub(super) points: Vec<(f64, Option<f64>)>,
}

impl Series {
    /// A line.
    pub(super) fn new(
        name: impl Into<String>,
        class: &'static str,
        points: impl Iterator<Item = (f64, Option<f64>)>,
    ) -> Self {
        Self {
            name: name.into(),
            class,
            points: points.collect(),
        }
    }

    fn is_empty(&self) -> bool {
        self.points.iter().all(|(_, value)| value.is_none())
    }
}

/// A plot over time.
pub(super) struct Plot {
    /// What it is called.
    pub(super) title: &'static str,
    /// What it means, in a sentence.
    pub(super) note: &'static str,
    /// The unit of its values.
    pub(super) unit: &'static str,
    /// Whether each step of the axis is ten times the one before.
    pub(super) log: bool,
    /// Its lines.
    pub(super) series: Vec<Series>,
}

/// The values of an axis, and where they lie: from 0 at the bottom to 1 at the top.
struct Axis {
    low: f64,
    high: f64,
    log: bool,
}

impl Axis {
    /// From zero, or from the power of ten below the smallest value.
    fn of(values: impl Iterator<Item = f64> + Clone, log: bool) -> Self {
        let high = values.clone().fold(0.0, f64::max);
        if !log {
            let step = nice(high / LABELS);
            return Self {
                low: 0.0,
                high: ((high / step).ceil() * step).max(step),
                log,
            };
        }
        let low = values.filter(|&value| value > 0.0).fold(high, f64::min).max(1e-3);
        let low = 10_f64.powf(low.log10().floor());
        // To a third of a decade, so that the plot is not half empty.
        let high = 10_f64.powf(((high.max(low * 10.0)).log10() * 3.0 - 1e-9).ceil() / 3.0);
        Self { low, high, log }
    }

    fn place(&self, value: f64) -> f64 {
        let part = if self.log {
            (value.max(self.low) / self.low).log10() / (self.high / self.low).log10()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        part.clamp(0.0, 1.0)
    }

    fn labels(&self) -> Vec<f64> {
        if self.log {
            let decades = (self.high / self.low).log10().floor() as i32;
            return (0..=decades)
                .map(|decade| self.low * 10_f64.powi(decade))
                .collect();
        }
        let step = nice((self.high - self.low) / LABELS);
        let count = ((self.high - self.low) / step + 1e-6).floor() as u32;
        (0..=count)
            .map(|number| self.low + f64::from(number) * step)
            .collect()
    }
}

/// The next of 1, 2, 5, 10, 20 …
fn nice(step: f64) -> f64 {
    if step <= 0.0 {
        return 1.0;
    }
    let power = 10_f64.powf(step.log10().floor());
    let factor = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .find(|factor| factor * power >= step * 0.999);
    factor.unwrap_or(10.0) * power
}

/// The same for time, in seconds.
fn nice_seconds(step: f64) -> f64 {
    let steps = [
        60.0, 120.0, 300.0, 600.0, 900.0, 1_800.0, 3_600.0, 7_200.0, 14_400.0, 21_600.0,
    ];
    if step <= 30.0 {
        return nice(step);
    }
    steps.into_iter().find(|&nice| nice >= step).unwrap_or(86_400.0)
}

fn time(seconds: f64, whole: f64) -> String {
    if whole <= 120.0 {
        return format!("{} s", short(seconds));
    }
    let minutes = (seconds / 60.0).round() as u64;
    if whole < 3_600.0 * 2.0 {
        format!("{minutes} min")
    } else {
        format!("{}:{:02} h", minutes / 60, minutes % 60)
    }
}

/// A number as short as an axis wants it.
pub(super) fn short(value: f64) -> String {
    let trim = |text: String| {
        if text.contains('.') {
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        } else {
            text
        }
    };
    match value.abs() {
        big if big >= 1e6 => trim(format!("{:.2}", value / 1e6)) + " M",
        big if big >= 1e4 => trim(format!("{:.1}", value / 1e3)) + " k",
        _ => trim(format!("{value:.3}")),
    }
}

fn milliseconds(ms: f64) -> String {
    if ms < 999.0 {
        format!("{} ms", short(ms))
    } else {
        format!("{} s", short(ms / 1e3))
    }
}

/// Text that can stand in HTML.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

impl Plot {
    /// The plot as a figure; nothing where nothing is known.
    pub(super) fn html(self, seconds: f64) -> String {
        let series: Vec<Series> = self
            .series
            .into_iter()
            .filter(|series| !series.is_empty())
            .collect();
        if series.is_empty() {
            return String::new();
        }
        let values = series
            .iter()
            .flat_map(|series| series.points.iter().filter_map(|(_, value)| *value));
        let axis = Axis::of(values, self.log);
        let across = Axis {
            low: 0.0,
            high: seconds.max(1e-3),
            log: false,
        };
        let lines: String = series.iter().map(|series| line(series, &axis, &across)).collect();
        let step = nice_seconds(seconds / 6.0);
        let ticks = (0..)
            .map(|number| f64::from(number) * step)
            .take_while(|&at| at <= seconds * 1.001);
        let ticks: Vec<(f64, String)> = ticks.map(|at| (across.place(at), time(at, seconds))).collect();
        Frame {
            title: self.title,
            note: self.note,
            unit: self.unit,
            legend: legend(&series),
            data: data(&series, seconds),
        }
        .html(&lines, &axis, &ticks)
    }
}

/// Name, colour, and for each bound how many lie between it and the one before.
pub(super) type BarSet = (&'static str, &'static str, Vec<(f64, f64)>);

/// A plot of how often each time occurred, on a logarithmic scale.
pub(super) struct Bars {
    /// What it is called.
    pub(super) title: &'static str,
    /// What it means, in a sentence.
    pub(super) note: &'static str,
    /// What it shows.
    pub(super) sets: Vec<BarSet>,
    /// What is marked.
    pub(super) marks: Vec<(&'static str, f64)>,
}

impl Bars {
    /// The plot as a figure; nothing where nothing is known.
    pub(super) fn html(self) -> String {
        let bounds = || {
            self.sets
                .iter()
                .flat_map(|(_, _, bars)| bars.iter().map(|(bound, _)| *bound))
        };
        let (first, last) = (
            bounds().fold(f64::INFINITY, f64::min),
            bounds().fold(0.0, f64::max),
        );
        if last == 0.0 {
            return String::new();
        }
        // A bar reaches from the bound before to its own: a tenth of a decade.
        let width = 10_f64.powf(0.1);
        let across = Axis {
            low: 10_f64.powf(((first / width).log10() * 2.0).floor() / 2.0),
            high: 10_f64.powf((last.log10() * 2.0).ceil() / 2.0),
            log: true,
        };
        let counts = self
            .sets
            .iter()
            .flat_map(|(_, _, bars)| bars.iter().map(|(_, count)| *count));
        let axis = Axis::of(counts, false);
        let mut shapes = String::new();
        for (_, class, bars) in &self.sets {
            for (bound, share) in bars {
                let (left, right) = (across.place(bound / width) * SIDE, across.place(*bound) * SIDE);
                let height = axis.place(*share) * SIDE;
                let _ = write!(
                    shapes,
                    r#"<rect class="bar {class}" x="{left:.1}" y="{:.1}" width="{:.1}" height="{height:.1}"/>"#,
                    SIDE - height,
                    (right - left).max(1.0),
                );
            }
        }
        for (_, at) in &self.marks {
            let at = across.place(*at) * SIDE;
            let _ = write!(
                shapes,
                r#"<line class="mark" x1="{at:.1}" x2="{at:.1}" y1="0" y2="{SIDE}"/>"#
            );
        }
        let decades = (-3..=7).map(|power| 10_f64.powi(power));
        let ticks = decades.filter(|at| (across.low * 0.999..=across.high * 1.001).contains(at));
        let ticks: Vec<(f64, String)> = ticks.map(|at| (across.place(at), milliseconds(at))).collect();
        let mut legend: String = self
            .sets
            .iter()
            .map(|(name, class, _)| entry(name, class))
            .collect();
        for (name, at) in &self.marks {
            let _ = write!(
                legend,
                "<li><i class=\"dash\"></i>{name} {} ms</li>",
                decimal(*at)
            );
        }
        Frame {
            title: self.title,
            note: self.note,
            unit: "% of tasks",
            legend,
            data: String::new(),
        }
        .html(&shapes, &axis, &ticks)
    }
}

/// What is around a plot.
struct Frame {
    title: &'static str,
    note: &'static str,
    unit: &'static str,
    legend: String,
    data: String,
}

impl Frame {
    fn html(&self, shapes: &str, axis: &Axis, ticks: &[(f64, String)]) -> String {
        let mut grid = String::new();
        let mut labels = String::new();
        for value in axis.labels() {
            let place = axis.place(value);
            let y = SIDE * (1.0 - place);
            let _ = write!(
                grid,
                r#"<line class="grid" x1="0" x2="{SIDE}" y1="{y:.1}" y2="{y:.1}"/>"#
            );
            let _ = write!(
                labels,
                r#"<b class="y" style="bottom:{:.2}%">{}</b>"#,
                place * 100.0,
                short(value)
            );
        }
        for (index, (place, text)) in ticks.iter().enumerate() {
            let other = if index % 2 == 1 { " odd" } else { "" };
            let _ = write!(
                labels,
                r#"<b class="x{other}" style="left:{:.2}%">{text}</b>"#,
                place * 100.0
            );
        }
        let Self {
            title,
            note,
            unit,
            legend,
            data,
        } = self;
        format!(
            r#"<figure><figcaption><h3>{title}</h3><p>{note}</p></figcaption><ul class="legend">{legend}</ul>
<div class="plot"{data}><em>{unit}</em>{labels}<svg viewBox="0 0 {SIDE} {SIDE}" preserveAspectRatio="none" role="img" aria-label="{title}">{grid}{shapes}</svg></div></figure>
"#
        )
    }
}

fn entry(name: &str, class: &str) -> String {
    format!(r#"<li><i class="{class}"></i>{}</li>"#, escape(name))
}

fn legend(series: &[Series]) -> String {
    series
        .iter()
        .map(|series| entry(&series.name, series.class))
        .collect()
}

fn line(series: &Series, axis: &Axis, across: &Axis) -> String {
    let mut path = String::new();
    let mut pen = 'M';
    for (at, value) in &series.points {
        let Some(value) = value else {
            pen = 'M';
            continue;
        };
        let (x, y) = (across.place(*at) * SIDE, SIDE * (1.0 - axis.place(*value)));
        let _ = write!(path, "{pen}{x:.1} {y:.1}");
        pen = 'L';
    }
    format!(r#"<path class="line {}" d="{path}"/>"#, series.class)
}

/// What the script shows where the pointer is.
fn data(series: &[Series], seconds: f64) -> String {
    let times: Vec<f64> = series[0].points.iter().map(|(at, _)| *at).collect();
    let lines: Vec<_> = series
        .iter()
        .map(|series| {
            let values: Vec<Option<f64>> = series
                .points
                .iter()
                .map(|(_, value)| value.map(super::round))
                .collect();
            serde_json::json!({"name": series.name, "class": series.class, "values": values})
        })
        .collect();
    let data = serde_json::json!({"seconds": seconds, "times": times, "lines": lines});
    format!(r#" data-plot="{}""#, escape(&data.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_have_round_labels_and_hold_all_values() {
        let axis = Axis::of([3.0, 97.0].into_iter(), false);
        assert_eq!(axis.labels(), [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]);
        let axis = Axis::of([0.4, 230.0].into_iter(), true);
        assert_eq!((axis.low, axis.labels().len()), (0.1, 4));
        assert!(axis.place(230.0) < 1.0 && axis.place(0.4) > 0.0 && axis.place(0.0) == 0.0);
        let nothing = Axis::of([0.0].into_iter(), false);
        assert!(nothing.place(0.0) == 0.0 && nothing.high > 0.0);
    }

    #[test]
    fn numbers_on_axes_are_short() {
        let written = [0.0, 0.25, 5.0, 1_500.0, 25_000.0, 1_250_000.0].map(short);
        assert_eq!(written, ["0", "0.25", "5", "1500", "25 k", "1.25 M"]);
        assert_eq!(
            (time(30.0, 60.0), time(600.0, 1_800.0), time(5_400.0, 10_800.0)),
            ("30 s".into(), "10 min".into(), "1:30 h".into())
        );
    }

    #[test]
    fn gaps_stay_gaps() {
        let series = Series::new(
            "a",
            "c1",
            [(0.0, Some(1.0)), (1.0, None), (2.0, Some(1.0))].into_iter(),
        );
        let axis = Axis::of([1.0].into_iter(), false);
        let path = line(
            &series,
            &axis,
            &Axis {
                low: 0.0,
                high: 2.0,
                log: false,
            },
        );
        assert_eq!(path.matches('M').count(), 2, "{path}");
    }
}
