//! Draws how a pool followed its queue, as an SVG.

use std::{fmt::Write, path::PathBuf};

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 400.0;
/// Room for the axes' labels: left and right, above, below.
const SIDE: f64 = 64.0;
const ABOVE: f64 = 56.0;
const BELOW: f64 = 44.0;

/// What was seen at one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    /// Seconds since the beginning.
    pub(crate) at: f64,
    /// Tasks that wait and that run.
    pub(crate) depth: f64,
    /// Worker processes.
    pub(crate) workers: f64,
}

/// How a pool followed its queue.
#[derive(Debug, Default)]
pub(crate) struct Timeline {
    pub(crate) moments: Vec<Moment>,
    /// What happened, and when.
    pub(crate) notes: Vec<(f64, String)>,
}

/// One of the two scales.
struct Scale {
    most: f64,
    size: f64,
}

impl Timeline {
    /// Writes it below the folder for what tests leave behind, and returns where.
    pub(crate) fn write(&self, name: &str, title: &str) -> PathBuf {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::write(&path, self.svg(title)).unwrap();
        path
    }

    fn svg(&self, title: &str) -> String {
        let time = Scale {
            most: self.moments.last().map_or(1.0, |moment| moment.at).max(1.0),
            size: WIDTH - 2.0 * SIDE,
        };
        let high = |value: fn(&Moment) -> f64| Scale {
            most: rounded(self.moments.iter().map(value).fold(1.0, f64::max)),
            size: HEIGHT - ABOVE - BELOW,
        };
        let (depth, workers) = (high(|moment| moment.depth), high(|moment| moment.workers));
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"system-ui, sans-serif\" \
             font-size=\"12\" role=\"img\" aria-label=\"{title}\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
             <text x=\"{SIDE}\" y=\"22\" font-size=\"15\" font-weight=\"600\" fill=\"#222\">{title}</text>\n\
             <text x=\"{SIDE}\" y=\"42\" fill=\"#2563a8\">tasks waiting and running</text>\n\
             <text x=\"{}\" y=\"42\" fill=\"#b4531a\" text-anchor=\"end\">worker processes</text>\n",
            WIDTH - SIDE
        );
        self.axes(&mut svg, &time, &depth, &workers);
        let area = self.line(&time, &depth, |moment| moment.depth, false);
        let (left, right, floor) = (SIDE, SIDE + time.size, HEIGHT - BELOW);
        let _ = writeln!(
            svg,
            "<path d=\"M{left} {floor} L{area} L{right} {floor} Z\" fill=\"#2563a8\" fill-opacity=\"0.18\"/>"
        );
        let _ = writeln!(
            svg,
            "<path d=\"M{area}\" fill=\"none\" stroke=\"#2563a8\" stroke-width=\"2\"/>"
        );
        let steps = self.line(&time, &workers, |moment| moment.workers, true);
        let _ = writeln!(
            svg,
            "<path d=\"M{steps}\" fill=\"none\" stroke=\"#b4531a\" stroke-width=\"2\"/>"
        );
        for (number, (at, note)) in self.notes.iter().enumerate() {
            let (x, y) = (SIDE + time.place(*at), ABOVE + 14.0 + 15.0 * number as f64);
            let _ = writeln!(
                svg,
                "<path d=\"M{x:.1} {ABOVE} V{floor}\" stroke=\"#777\" stroke-dasharray=\"3 3\"/>\
                 <text x=\"{:.1}\" y=\"{y:.1}\" fill=\"#444\">{note}</text>",
                x + 5.0
            );
        }
        svg.push_str("</svg>\n");
        svg
    }

    fn axes(&self, svg: &mut String, time: &Scale, depth: &Scale, workers: &Scale) {
        let floor = HEIGHT - BELOW;
        let _ = writeln!(
            svg,
            "<path d=\"M{SIDE} {floor} H{}\" stroke=\"#999\"/>",
            WIDTH - SIDE
        );
        for part in 0..=4 {
            let part = f64::from(part) / 4.0;
            let y = floor - depth.size * part;
            let _ = writeln!(
                svg,
                "<path d=\"M{SIDE} {y:.1} H{}\" stroke=\"#eee\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#2563a8\">{:.0}</text>\
                 <text x=\"{}\" y=\"{:.1}\" fill=\"#b4531a\">{}</text>",
                WIDTH - SIDE,
                SIDE - 8.0,
                y + 4.0,
                depth.most * part,
                WIDTH - SIDE + 8.0,
                y + 4.0,
                workers.most * part,
            );
        }
        let step = rounded(time.most / 8.0);
        let mut at = 0.0;
        while at <= time.most {
            let x = SIDE + time.place(at);
            let _ = writeln!(
                svg,
                "<text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\" fill=\"#555\">{at:.0} s</text>",
                floor + 20.0
            );
            at += step;
        }
    }

    /// The points of a line, in steps where the value holds until the next.
    fn line(&self, time: &Scale, scale: &Scale, value: fn(&Moment) -> f64, steps: bool) -> String {
        let mut line = String::new();
        let mut last = None;
        for moment in &self.moments {
            let (x, y) = (
                SIDE + time.place(moment.at),
                HEIGHT - BELOW - scale.place(value(moment)),
            );
            if let (true, Some(last)) = (steps, last) {
                let _ = write!(line, "{x:.1} {last:.1} ");
            }
            let _ = write!(line, "{x:.1} {y:.1} ");
            last = Some(y);
        }
        line
    }
}

impl Scale {
    fn place(&self, value: f64) -> f64 {
        self.size * value / self.most
    }
}

/// The next of 1, 2, 4, 5, 8, 10, 20 …
fn rounded(value: f64) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    [1.0, 2.0, 4.0, 5.0, 8.0, 10.0]
        .into_iter()
        .map(|factor| factor * power)
        .find(|&step| step >= value * 0.999)
        .unwrap_or(value)
}
