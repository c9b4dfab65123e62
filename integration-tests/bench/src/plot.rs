//! Distributions of latencies as a self-contained SVG: for each protocol, which share of all deliveries took at most so long.
//!
//! The time axis is logarithmic, since protocols differ by orders of magnitude; it covers what was measured, in whole powers of ten and their halves.

use std::fmt::Write;

use crate::sample::to_f64;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 470.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 40.0;
const TOP: f64 = 56.0;
const BOTTOM: f64 = 104.0;

/// Colours that colour-blind readers tell apart (Okabe and Ito), and dashes for print.
const STYLES: [(&str, &str); 4] =
    [("#0072B2", ""), ("#D55E00", "7 4"), ("#009E73", "2 3"), ("#CC79A7", "9 3 2 3")];

/// Steps within a power of ten that get a line of their own.
const STEPS: [f64; 3] = [1.0, 2.0, 5.0];

/// The latencies of one protocol.
#[derive(Debug, Clone)]
pub(crate) struct Curve {
    /// Its name.
    pub(crate) name: String,
    /// All latencies in milliseconds, ascending.
    pub(crate) values_ms: Vec<f64>,
}

/// The time axis.
#[derive(Debug, Clone, Copy)]
struct Axis {
    low: f64,
    high: f64,
}

impl Axis {
    /// Between the steps around all values; at least a power of ten.
    fn around(curves: &[Curve]) -> Self {
        let values =
            || curves.iter().flat_map(|curve| &curve.values_ms).copied().filter(|value| *value > 0.0);
        let least = values().fold(f64::INFINITY, f64::min);
        let most = values().fold(0.0, f64::max);
        let (least, most) = if least.is_finite() { (least.max(0.01), most) } else { (1.0, 10.0) };
        let steps: Vec<f64> = Self::steps().collect();
        let low = steps.iter().copied().rfind(|step| *step <= least).unwrap_or(0.01);
        let high = steps.iter().copied().find(|step| *step >= most.max(low * 10.0)).unwrap_or(1e6);
        Self { low, high }
    }

    fn steps() -> impl Iterator<Item = f64> {
        (-2..=6).flat_map(|power| STEPS.map(|step| step * 10f64.powi(power)))
    }

    fn x(&self, value_ms: f64) -> f64 {
        let share = (value_ms.max(self.low) / self.low).ln() / (self.high / self.low).ln();
        LEFT + share.clamp(0.0, 1.0) * (WIDTH - LEFT - RIGHT)
    }
}

fn y(share: f64) -> f64 {
    HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)
}

/// The picture.
pub(crate) fn distributions(title: &str, curves: &[Curve]) -> String {
    let axis = Axis::around(curves);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" \
         font-family=\"Helvetica, Arial, sans-serif\" font-size=\"13\" fill=\"#222\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#fff\"/>\n\
         <text x=\"{LEFT}\" y=\"26\" font-size=\"16\" font-weight=\"bold\">{}</text>\n\
         <text x=\"{LEFT}\" y=\"45\" fill=\"#555\">share of deliveries (peers × blocks) that took at most so long</text>\n",
        escaped(title)
    );
    grid(&mut svg, axis);
    let mut legend_x = LEFT;
    for (curve, (colour, dashes)) in curves.iter().zip(STYLES.into_iter().cycle()) {
        let line =
            format!("fill=\"none\" stroke=\"{colour}\" stroke-width=\"2.2\" stroke-dasharray=\"{dashes}\"");
        // Writing to a string cannot fail.
        let _ = writeln!(svg, "<polyline points=\"{}\" {line}/>", points(curve, axis));
        let legend_y = HEIGHT - 22.0;
        let _ = writeln!(
            svg,
            "<line x1=\"{legend_x:.0}\" y1=\"{0:.0}\" x2=\"{1:.0}\" y2=\"{0:.0}\" {line}/>",
            legend_y - 4.0,
            legend_x + 34.0
        );
        let median = crate::output::rounded(middle(&curve.values_ms));
        let label = format!("{} (p50 {median:.1} ms)", curve.name);
        let _ = writeln!(
            svg,
            "<text x=\"{:.0}\" y=\"{legend_y:.0}\">{}</text>",
            legend_x + 40.0,
            escaped(&label)
        );
        legend_x += 196.0;
    }
    svg.push_str("</svg>\n");
    svg
}

fn grid(svg: &mut String, axis: Axis) {
    for tenth in 0u64..=10 {
        if tenth % 2 == 1 && tenth != 9 {
            continue;
        }
        let (share, label) = (to_f64(tenth) / 10.0, tenth * 10);
        let _ = writeln!(
            svg,
            "<line x1=\"{LEFT}\" y1=\"{0:.1}\" x2=\"{1}\" y2=\"{0:.1}\" stroke=\"#ddd\"/><text x=\"{2}\" y=\"{3:.1}\" text-anchor=\"end\">{label} %</text>",
            y(share),
            WIDTH - RIGHT,
            LEFT - 8.0,
            y(share) + 4.5
        );
    }
    for step in Axis::steps().filter(|step| *step >= axis.low * 0.999 && *step <= axis.high * 1.001) {
        let x = axis.x(step);
        let _ = writeln!(
            svg,
            "<line x1=\"{x:.1}\" y1=\"{:.1}\" x2=\"{x:.1}\" y2=\"{:.1}\" stroke=\"#ddd\"/><text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            y(1.0),
            y(0.0),
            y(0.0) + 19.0,
            duration(step)
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"middle\" fill=\"#555\">from the orderer having written a block until a peer has verified it and hands it to its ledger</text>",
        LEFT + (WIDTH - LEFT - RIGHT) / 2.0,
        y(0.0) + 42.0
    );
}

/// A step for each value.
fn points(curve: &Curve, axis: Axis) -> String {
    let count = to_f64(curve.values_ms.len().max(1) as u64);
    let mut text = String::new();
    let mut reached = y(0.0);
    for (index, value) in curve.values_ms.iter().enumerate() {
        let x = axis.x(*value);
        let _ = write!(text, "{x:.1},{reached:.1} ");
        reached = y(to_f64(index as u64 + 1) / count);
        let _ = write!(text, "{x:.1},{reached:.1} ");
    }
    text
}

fn middle(ascending: &[f64]) -> f64 {
    ascending.get(ascending.len().saturating_sub(1) / 2).copied().unwrap_or(0.0)
}

/// Milliseconds in the unit a reader would use.
fn duration(ms: f64) -> String {
    if ms >= 1_000.0 { format!("{} s", ms / 1_000.0) } else { format!("{ms} ms") }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(name: &str, values_ms: &[f64]) -> Curve {
        Curve { name: name.to_owned(), values_ms: values_ms.to_vec() }
    }

    #[test]
    fn the_axis_covers_all_values_and_at_least_a_power_of_ten() {
        let axis = Axis::around(&[curve("a", &[3.0, 40.0]), curve("b", &[8.0, 4_200.0])]);
        assert_eq!((axis.low, axis.high), (2.0, 5_000.0));
        let axis = Axis::around(&[curve("a", &[3.0])]);
        assert_eq!((axis.low, axis.high), (2.0, 20.0));
        assert_eq!(axis.x(2.0), LEFT);
        assert!((axis.x(20.0) - (WIDTH - RIGHT)).abs() < 1e-9);
    }

    #[test]
    fn a_curve_climbs_from_nothing_to_everything() {
        let axis = Axis { low: 1.0, high: 100.0 };
        let points = points(&curve("a", &[1.0, 10.0]), axis);
        let pairs: Vec<&str> = points.split_whitespace().collect();
        assert_eq!(pairs.len(), 4);
        assert!(pairs.first().unwrap().ends_with(&format!(",{:.1}", y(0.0))));
        assert!(pairs.last().unwrap().ends_with(&format!(",{:.1}", y(1.0))));
    }

    #[test]
    fn every_protocol_is_drawn_and_named_and_nothing_breaks_the_markup() {
        let svg = distributions("a < b & c", &[curve("one", &[1.0]), curve("two", &[])]);
        assert_eq!(svg.matches("<polyline").count(), 2);
        assert!(svg.contains("a &lt; b &amp; c") && svg.contains("one (p50") && svg.contains("two (p50"));
        assert!(svg.starts_with("<svg xmlns") && svg.ends_with("</svg>\n"));
    }
}
