//! Curves over time, as SVG. Counts stand on a scale that is logarithmic and yet
//! has a zero: log₁₀(1 + count).

use std::fmt::Write as _;

use super::{Kind, report::Comparison};

/// Size of the picture and of the field in it, in pixels.
const SIZE: (f64, f64) = (760.0, 330.0);
const LEFT: f64 = 62.0;
const TOP: f64 = 34.0;
const FIELD: (f64, f64) = (540.0, 240.0);
/// Points of a curve, at most.
const POINTS: usize = 270;

/// Calls a second at the target, over time.
#[must_use]
pub fn load(storm: &Comparison) -> String {
    let curves = storm.strategies.iter().map(|row| (row.strategy, row.first.load.clone()));
    picture(storm, "calls at the target, per second", curves.collect())
}

/// Steps that have begun and not ended, over time.
#[must_use]
pub fn backlog(storm: &Comparison) -> String {
    let curves = storm.strategies.iter().map(|row| (row.strategy, row.first.backlog()));
    picture(storm, "steps not yet ended", curves.collect())
}

fn picture(storm: &Comparison, what: &str, curves: Vec<(Kind, Vec<u32>)>) -> String {
    let seconds = curves.iter().map(|(_, counts)| counts.len()).max().unwrap_or(0).max(1);
    let highest = curves.iter().flat_map(|(_, counts)| counts).copied().max().unwrap_or(0);
    let top = highest.max(10);
    let (width, height) = SIZE;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"20\" font-size=\"14\">{}: {what}</text>\n",
        storm.scenario.name
    );
    axes(&mut svg, seconds, top);
    recovery(&mut svg, storm.scenario.recovery.as_secs_f64(), seconds);
    for (place, (kind, counts)) in curves.iter().enumerate() {
        curve(&mut svg, *kind, counts, seconds, top);
        legend(&mut svg, *kind, place);
    }
    svg.push_str("</svg>\n");
    svg
}

fn scaled(count: u32) -> f64 {
    (1.0 + f64::from(count)).log10()
}

fn x_at(second: f64, seconds: usize) -> f64 {
    LEFT + second / seconds as f64 * FIELD.0
}

fn y_at(count: u32, top: u32) -> f64 {
    TOP + FIELD.1 * (1.0 - scaled(count) / scaled(top))
}

fn axes(svg: &mut String, seconds: usize, top: u32) {
    let (right, bottom) = (LEFT + FIELD.0, TOP + FIELD.1);
    let decades = (0..=9).map(|decade| 10_u32.pow(decade)).filter(|count| *count <= top);
    for count in std::iter::once(0).chain(decades) {
        let y = y_at(count, top);
        add(
            svg,
            format_args!(
                "<path d=\"M{LEFT} {y:.1}H{right}\" stroke=\"#ddd\"/>\n\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{count}</text>",
                LEFT - 6.0,
                y + 4.0
            ),
        );
    }
    let apart = minutes_apart(seconds);
    for minute in (0..=seconds / 60).step_by(apart) {
        let x = x_at(minute as f64 * 60.0, seconds);
        add(
            svg,
            format_args!(
                "<path d=\"M{x:.1} {bottom}v4\" stroke=\"black\"/>\n\
             <text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{minute}</text>",
                bottom + 17.0
            ),
        );
    }
    add(
        svg,
        format_args!(
            "<path d=\"M{LEFT} {TOP}V{bottom}H{right}\" fill=\"none\" stroke=\"black\"/>\n\
         <text x=\"{}\" y=\"{}\" text-anchor=\"middle\">minutes</text>",
            LEFT + FIELD.0 / 2.0,
            bottom + 36.0
        ),
    );
}

/// Minutes between two marks, so that there are a dozen at most.
fn minutes_apart(seconds: usize) -> usize {
    [1, 2, 5, 10, 20, 30, 60].into_iter().find(|apart| seconds / 60 / apart <= 12).unwrap_or(120)
}

fn recovery(svg: &mut String, at: f64, seconds: usize) {
    let x = x_at(at, seconds);
    add(
        svg,
        format_args!(
            "<path d=\"M{x:.1} {TOP}v{}\" stroke=\"#888\" stroke-dasharray=\"2 3\"/>\n\
         <text x=\"{:.1}\" y=\"{}\" fill=\"#666\">recovery</text>",
            FIELD.1,
            x + 4.0,
            TOP + 10.0
        ),
    );
}

/// The highest count of each stretch, so that no peak is lost.
fn curve(svg: &mut String, kind: Kind, counts: &[u32], seconds: usize, top: u32) {
    let stretch = seconds.div_ceil(POINTS);
    let mut points = String::new();
    for (place, counts) in counts.chunks(stretch).enumerate() {
        let highest = counts.iter().copied().max().unwrap_or(0);
        let x = x_at((place * stretch) as f64, seconds);
        let _ = write!(points, "{x:.0},{:.0} ", y_at(highest, top));
    }
    let (colour, dash) = style(kind);
    add(
        svg,
        format_args!(
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.4\"{dash}/>",
            points.trim_end()
        ),
    );
}

fn legend(svg: &mut String, kind: Kind, place: usize) {
    let (x, y) = (LEFT + FIELD.0 + 16.0, TOP + 12.0 + 20.0 * place as f64);
    let (colour, dash) = style(kind);
    add(
        svg,
        format_args!(
            "<path d=\"M{x} {y}h24\" stroke=\"{colour}\" stroke-width=\"2.5\"{dash}/>\n\
         <text x=\"{}\" y=\"{}\">{}</text>",
            x + 30.0,
            y + 4.0,
            kind.name()
        ),
    );
}

/// Colours that people with any colour vision tell apart (Okabe and Ito).
const fn style(kind: Kind) -> (&'static str, &'static str) {
    match kind {
        Kind::Exponential => ("#e69f00", ""),
        Kind::FullJitter => ("#56b4e9", ""),
        Kind::Fixed => ("#009e73", ""),
        Kind::TokenBucket => ("#cc79a7", ""),
        Kind::Finagle => ("#0072b2", ""),
        Kind::Envoy => ("#a0a000", ""),
        Kind::Limits => ("#d55e00", " stroke-dasharray=\"2 2\""),
        Kind::Reprise => ("#d55e00", ""),
        Kind::Oracle => ("#000000", " stroke-dasharray=\"5 3\""),
    }
}

/// Writing to a string cannot fail.
fn add(svg: &mut String, element: std::fmt::Arguments<'_>) {
    let _ = writeln!(svg, "{element}");
}
