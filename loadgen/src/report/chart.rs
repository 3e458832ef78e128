//! Line charts as SVG, for pages that need nothing from elsewhere.

use std::fmt::Write;

/// How values lie on an axis.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scale {
    Linear,
    Log,
}

/// One axis: its range, and the values that get a label.
pub struct Axis {
    pub scale: Scale,
    pub min: f64,
    pub max: f64,
    pub ticks: Vec<(f64, String)>,
    /// Values that get a fine line and no label.
    pub fine: Vec<f64>,
    /// What is on it, and in which unit.
    pub title: String,
    /// A stretch that is set apart, and what it is called.
    pub shaded: Option<(f64, f64, &'static str)>,
}

/// One line.
pub struct Series {
    pub name: String,
    /// Which of the page's colours, from 0.
    pub color: usize,
    pub points: Vec<(f64, f64)>,
}

/// Colours that a page has for lines and bars.
pub const COLORS: usize = 6;
const TOP: f64 = 20.0;
const BOTTOM: f64 = 44.0;
/// What a character of a label takes at most, and how far labels stand apart.
const CHARACTER: f64 = 7.0;
const APART: f64 = 6.0;

/// A chart is drawn twice, and the page shows the one that fits its width: letters must not shrink with the lines.
struct Size {
    class: &'static str,
    width: f64,
    height: f64,
    left: f64,
    /// Room for half of the last label.
    right: f64,
}

const SIZES: [Size; 2] = [
    Size { class: "wide", width: 760.0, height: 300.0, left: 92.0, right: 30.0 },
    Size { class: "narrow", width: 360.0, height: 250.0, left: 70.0, right: 22.0 },
];

/// Of labels at these places, those that do not run into the one before. The last is dearer than its neighbour.
fn apart(places: &[(f64, f64)]) -> Vec<bool> {
    let mut kept = vec![false; places.len()];
    let mut order: Vec<usize> = (0..places.len()).collect();
    // The ends first, then the others as they come.
    order.rotate_right(usize::from(!places.is_empty()));
    for i in order {
        let (middle, room) = places[i];
        let free = |j: usize| {
            let (other, its_room) = places[j];
            !kept[j] || (other - middle).abs() >= (room + its_room) / 2.0 + APART
        };
        kept[i] = (0..places.len()).all(free);
    }
    kept
}

/// Points of a line that get a mark with a tooltip; beyond, marks would hide the line.
const MARKS_MAX: usize = 120;
/// Points of a line whose marks are drawn.
const MARKS_SEEN_MAX: usize = 40;

impl Axis {
    /// From 0 to a round number above `max`, with about five labels.
    pub fn linear(title: &str, max: f64, label: impl Fn(f64) -> String) -> Axis {
        Axis::stepped(title, max, 0.0, label)
    }

    /// The same in whole numbers.
    pub fn whole(title: &str, max: f64) -> Axis {
        Axis::stepped(title, max, 1.0, |v| format!("{v:.0}"))
    }

    fn stepped(title: &str, max: f64, step_min: f64, label: impl Fn(f64) -> String) -> Axis {
        let max = if max > 0.0 { max } else { 1.0 };
        let rough = (max / 5.0).max(step_min);
        let power = 10f64.powf(rough.log10().floor());
        let step =
            [1.0, 2.0, 5.0, 10.0].map(|m| m * power).into_iter().find(|&s| s >= rough).unwrap_or(rough);
        let steps = (max / step).ceil() as usize;
        let ticks = (0..=steps).map(|i| (i as f64 * step, label(i as f64 * step))).collect();
        let max = steps as f64 * step;
        Axis {
            scale: Scale::Linear,
            min: 0.0,
            max,
            ticks,
            fine: Vec::new(),
            title: title.into(),
            shaded: None,
        }
    }

    /// Whole powers of ten around the range, a label at each.
    pub fn log(title: &str, min: f64, max: f64, label: impl Fn(f64) -> String) -> Axis {
        let low = min.max(1e-9).log10().floor() as i32;
        let high = (max.max(1e-9).log10().ceil() as i32).max(low + 1);
        let decade = |p: i32| [1.0, 2.0, 5.0].map(|digit| digit * 10f64.powi(p));
        let ticks: Vec<f64> = if high - low <= 2 {
            // A decade alone says too little.
            (low..high).flat_map(decade).chain([10f64.powi(high)]).collect()
        } else {
            (low..=high).map(|p| 10f64.powi(p)).collect()
        };
        let fine =
            (low..high).flat_map(|p| (2..10).map(move |digit| f64::from(digit) * 10f64.powi(p))).collect();
        Axis {
            scale: Scale::Log,
            min: 10f64.powi(low),
            max: 10f64.powi(high),
            ticks: ticks.into_iter().map(|v| (v, label(v))).collect(),
            fine,
            title: title.into(),
            shaded: None,
        }
    }

    /// Exactly from `min` to `max`, with a label at each of the values that lie between.
    pub fn log_exact(title: &str, min: f64, max: f64, labels: Vec<(f64, String)>) -> Axis {
        let mut axis = Axis::log(title, min, max, |_| String::new());
        (axis.min, axis.max, axis.ticks, axis.fine) = (min, max, labels, Vec::new());
        axis.ticks.retain(|(value, _)| (min..=max).contains(value));
        axis
    }

    /// Exactly from 0 to `max` in whole numbers.
    pub fn whole_exact(title: &str, max: f64) -> Axis {
        let mut axis = Axis::whole(title, max);
        axis.max = max.max(f64::MIN_POSITIVE);
        axis.ticks.retain(|(value, _)| *value <= max);
        axis
    }

    /// Where a value lies, 0 to 1.
    fn place(&self, value: f64) -> f64 {
        let place = match self.scale {
            Scale::Linear => (value - self.min) / (self.max - self.min),
            Scale::Log => {
                (value.max(self.min).log10() - self.min.log10()) / (self.max.log10() - self.min.log10())
            }
        };
        place.clamp(0.0, 1.0)
    }
}

/// Text that is safe inside HTML and SVG.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A chart with its legend. `show` writes a point for its tooltip.
pub fn chart(x: &Axis, y: &Axis, series: &[Series], show: impl Fn(f64, f64) -> String) -> String {
    let mut out = String::from("<div class=\"legend\">");
    for line in series {
        let _ = write!(
            out,
            "<span><svg class=\"key\" viewBox=\"0 0 26 4\"><path class=\"s{}\" d=\"M0 2H26\"/></svg>{}</span>",
            line.color,
            escape(&line.name)
        );
    }
    out.push_str("</div>");
    for size in &SIZES {
        draw(&mut out, size, x, y, series, &show);
    }
    out
}

fn draw(
    out: &mut String,
    size: &Size,
    x: &Axis,
    y: &Axis,
    series: &[Series],
    show: &impl Fn(f64, f64) -> String,
) {
    let Size { class, width, height, left: begin, right: end } = *size;
    let place = |px: f64, py: f64| {
        let right = begin + x.place(px) * (width - begin - end);
        let down = TOP + (1.0 - y.place(py)) * (height - TOP - BOTTOM);
        (right, down)
    };
    let _ = write!(
        out,
        "<svg class=\"{class}\" viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{}\">",
        escape(&y.title)
    );
    if let Some((from, to, what)) = x.shaded {
        let ((left, _), (right, _)) = (place(from, y.min), place(to, y.min));
        let _ = write!(
            out,
            "<rect class=\"shade\" x=\"{left:.1}\" y=\"{TOP}\" width=\"{:.1}\" height=\"{:.1}\"/>\
             ",
            right - left,
            height - BOTTOM - TOP,
        );
        // Above the lines, and only where it fits into its stretch.
        if what.chars().count() as f64 * CHARACTER <= right - left {
            let _ = write!(
                out,
                "<text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                left + 2.0,
                TOP - 3.0,
                escape(what)
            );
        }
    }
    for value in &y.fine {
        let (_, down) = place(x.min, *value);
        let _ = write!(
            out,
            "<line class=\"fine\" x1=\"{begin}\" x2=\"{:.1}\" y1=\"{down:.1}\" y2=\"{down:.1}\"/>",
            width - end
        );
    }
    let spots = y.ticks.iter().map(|(value, _)| (place(x.min, *value).1, 8.0));
    let shown = apart(&spots.collect::<Vec<_>>());
    for ((value, label), shown) in y.ticks.iter().zip(shown) {
        let (_, down) = place(x.min, *value);
        let label = if shown { label } else { "" };
        let _ = write!(
            out,
            "<line class=\"grid\" x1=\"{begin}\" x2=\"{:.1}\" y1=\"{down:.1}\" y2=\"{down:.1}\"/>\
             <text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            width - end,
            begin - 8.0,
            down + 4.0,
            escape(label)
        );
    }
    let spots = x
        .ticks
        .iter()
        .map(|(value, label)| (place(*value, y.min).0, label.chars().count() as f64 * CHARACTER));
    let shown = apart(&spots.collect::<Vec<_>>());
    for ((value, label), shown) in x.ticks.iter().zip(shown) {
        let (right, _) = place(*value, y.min);
        // The first one must not reach under the labels of the other axis.
        let anchor = if *value <= x.min { "start" } else { "middle" };
        let label = if shown { label } else { "" };
        let _ = write!(
            out,
            "<line class=\"grid\" x1=\"{right:.1}\" x2=\"{right:.1}\" y1=\"{TOP}\" y2=\"{:.1}\"/>\
             <text class=\"tick\" x=\"{right:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}</text>",
            height - BOTTOM,
            height - BOTTOM + 17.0,
            escape(label)
        );
    }
    let _ = write!(
        out,
        "<text class=\"title\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
        (begin + width - end) / 2.0,
        height - 8.0,
        escape(&x.title)
    );
    let middle = (TOP + height - BOTTOM) / 2.0;
    let _ = write!(
        out,
        "<text class=\"title\" transform=\"translate(14 {middle:.1}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
        escape(&y.title)
    );
    for line in series {
        let points: Vec<(f64, f64)> = line.points.iter().map(|&(px, py)| place(px, py)).collect();
        let path: Vec<String> = points.iter().map(|(right, down)| format!("{right:.1},{down:.1}")).collect();
        let _ = write!(out, "<polyline class=\"s{}\" points=\"{}\"/>", line.color, path.join(" "));
        let step = line.points.len().div_ceil(MARKS_MAX).max(1);
        // Where they would run into a band they are there for the pointer only.
        let seen = if line.points.len() > MARKS_SEEN_MAX { " hit" } else { "" };
        for (i, (right, down)) in points.iter().enumerate().step_by(step) {
            let (px, py) = line.points[i];
            let _ = write!(
                out,
                "<circle class=\"m{}{seen}\" cx=\"{right:.1}\" cy=\"{down:.1}\" r=\"3\"><title>{}: {}</title></circle>",
                line.color,
                escape(&line.name),
                escape(&show(px, py))
            );
        }
    }
    out.push_str("</svg>");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_are_round_and_hold_their_range() {
        let axis = Axis::linear("a", 437.0, |v| v.to_string());
        assert_eq!((axis.max, axis.ticks.len()), (500.0, 6));
        assert_eq!(axis.place(250.0), 0.5);
        let axis = Axis::log("a", 30.0, 4000.0, |v| v.to_string());
        assert_eq!((axis.min, axis.max, axis.ticks.len()), (10.0, 10_000.0, 4));
        assert!((axis.place(100.0) - 1.0 / 3.0).abs() < 1e-9);
        assert_eq!(axis.place(0.0), 0.0);
        assert!(Axis::linear("a", 0.0, |v| v.to_string()).max > 0.0);
        let labels: Vec<String> = Axis::whole_exact("a", 2.0).ticks.into_iter().map(|t| t.1).collect();
        assert_eq!(labels, ["0", "1", "2"], "no label twice");
        assert_eq!(Axis::log("a", 30.0, 40.0, |v| v.to_string()).ticks.len(), 4, "10, 20, 50, 100");
    }

    #[test]
    fn labels_do_not_run_into_one_another() {
        // The last is kept, and what would touch it is not.
        assert_eq!(
            apart(&[(0.0, 30.0), (40.0, 30.0), (60.0, 30.0), (90.0, 30.0)]),
            [true, true, false, true]
        );
        assert_eq!(apart(&[(0.0, 30.0), (20.0, 30.0)]), [false, true]);
        assert_eq!(apart(&[]), [false; 0]);
    }

    #[test]
    fn a_chart_is_well_formed_and_escaped() {
        let axis = || Axis::linear("x<y", 10.0, |v| v.to_string());
        let series = [Series { name: "a & b".into(), color: 0, points: vec![(0.0, 1.0), (10.0, 9.0)] }];
        let svg = chart(&axis(), &axis(), &series, |x, y| format!("{x} {y}"));
        assert!(svg.contains("a &amp; b") && svg.contains("x&lt;y") && !svg.contains("x<y"));
        assert_eq!(svg.matches("<circle").count(), 4, "two points in the wide and in the narrow drawing");
        assert_eq!(svg.matches("<svg").count(), svg.matches("</svg>").count());
        assert_eq!(svg.matches("class=\"s0\"").count(), 3, "the line twice and its key in the legend");
    }
}
