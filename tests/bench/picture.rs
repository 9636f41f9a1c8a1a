//! Pictures: dark on white, so that they can be read on a page of either kind.

use std::ops::Range;
use std::path::Path;

use anyhow::Result;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::report::{Curve, Row, count, number};

const SIZE: (u32, u32) = (900, 560);
const FONT: &str = "sans-serif";

/// Told apart also by those who see few colours.
const COLOURS: [RGBColor; 4] =
    [RGBColor(0, 114, 178), RGBColor(213, 94, 0), RGBColor(0, 158, 115), RGBColor(204, 121, 167)];

const GREY: RGBColor = RGBColor(90, 90, 90);

/// The range of positive values, with room on both sides of it; in powers of ten, so that it has marks.
fn range(values: impl Iterator<Item = f64> + Clone) -> Range<f64> {
    let least = values.clone().filter(|&value| value > 0.0).fold(f64::INFINITY, f64::min);
    let most = values.fold(0.0, f64::max);
    if most <= 0.0 {
        return 1.0..10.0;
    }
    let (low, high) = ((least / 1.3).log10().floor(), (most * 1.3).log10().ceil());
    10_f64.powf(low)..10_f64.powf(high.max(low + 1.0))
}

/// What a mark of an axis says: nothing where another is too near.
fn mark(value: f64) -> String {
    let leading = value / 10_f64.powf((value.log10() + 1e-9).floor());
    let is_told = [1.0, 2.0, 5.0].iter().any(|told| (leading - told).abs() < 1e-6);
    match value {
        _ if !is_told => String::new(),
        value if value < 1.0 => format!("{}", (value * 1e6).round() / 1e6),
        value => count(value),
    }
}

/// Both axes are logarithmic.
pub fn curve(file: &Path, curve: &Curve) -> Result<()> {
    let root = SVGBackend::new(file, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let points = curve.lines.iter().flat_map(|line| line.points.iter());
    let xs = points.clone().map(|point| point.0);
    let (least, most) = (xs.clone().fold(f64::INFINITY, f64::min), xs.fold(0.0, f64::max));
    let across = if least < most { least * 0.9..most * 1.1 } else { 1.0..10.0 };
    let mut chart = ChartBuilder::on(&root)
        .caption(curve.title, (FONT, 22).into_font().color(&BLACK))
        .margin(16)
        .x_label_area_size(48)
        .y_label_area_size(84)
        .build_cartesian_2d(across.log_scale(), range(points.map(|point| point.1)).log_scale())?;
    chart
        .configure_mesh()
        .x_desc(curve.x)
        .y_desc(curve.y)
        .x_label_formatter(&|x| mark(*x))
        .y_label_formatter(&|y| mark(*y))
        .label_style((FONT, 14).into_font().color(&BLACK))
        .axis_desc_style((FONT, 16).into_font().color(&BLACK))
        .bold_line_style(BLACK.mix(0.15))
        .light_line_style(BLACK.mix(0.05))
        .draw()?;
    for (line, colour) in curve.lines.iter().zip(COLOURS.into_iter().cycle()) {
        let series = LineSeries::new(line.points.iter().copied(), colour.stroke_width(2)).point_size(3);
        let drawn = chart.draw_series(series)?.label(line.name.as_str());
        drawn.legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], colour.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE.mix(0.85))
        .border_style(GREY)
        .label_font((FONT, 14).into_font().color(&BLACK))
        .draw()?;
    Ok(root.present()?)
}

/// The height of a bar with the space around it, and where bars begin and end.
const STEP: i32 = 30;
const LEFT: i32 = 520;
const RIGHT: i32 = 1_000;
const TOP: i32 = 84;

/// The largest ratio that has its full length.
const MOST: f64 = 1.5;

fn place(ratio: f64) -> i32 {
    LEFT + (f64::from(RIGHT - LEFT) * ratio.clamp(0.0, MOST) / MOST) as i32
}

fn text(size: i32, across: HPos) -> TextStyle<'static> {
    let style = TextStyle::from((FONT, size).into_font()).color(&BLACK);
    style.pos(Pos::new(across, VPos::Center))
}

fn line(from: (i32, i32), to: (i32, i32), width: u32) -> PathElement<(i32, i32)> {
    PathElement::new([from, to], BLACK.stroke_width(width))
}

/// Each rate beside its floor as a bar, the spread of the ratios as a whisker, the goal as a tick.
pub fn bars(file: &Path, rows: &[Row]) -> Result<()> {
    let shown = rows.iter().filter(|row| row.is_rate() && row.ratio().is_some());
    let shown: Vec<&Row> = shown.collect();
    let height = TOP + STEP * shown.len() as i32 + 24;
    let root = SVGBackend::new(file, (RIGHT as u32 + 90, height as u32)).into_drawing_area();
    root.fill(&WHITE)?;
    let title = "Rates beside their floors: median (bar), least to most (whisker), goal (tick)";
    root.draw_text(title, &text(20, HPos::Left), (16, 24))?;
    for mark in [0.0, 0.5, 1.0, 1.5] {
        let x = place(mark);
        root.draw_text(&format!("{mark:.1}"), &text(14, HPos::Center), (x, TOP - 24))?;
        let strength = if mark == 1.0 { 0.6 } else { 0.15 };
        let ends = [(x, TOP - 12), (x, height - 20)];
        root.draw(&PathElement::new(ends, BLACK.mix(strength).stroke_width(1)))?;
    }
    for (index, row) in shown.into_iter().enumerate() {
        bar(&root, row, TOP + STEP * index as i32 + STEP / 2)?;
    }
    Ok(root.present()?)
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

fn bar(root: &Area<'_>, row: &Row, middle: i32) -> Result<()> {
    let (Some(ratio), Some((least, most))) = (row.ratio(), row.spread()) else { return Ok(()) };
    let colour = match row.is_reached() {
        Some(true) => COLOURS[2],
        Some(false) => COLOURS[1],
        None => COLOURS[0],
    };
    root.draw_text(&row.head.name, &text(13, HPos::Right), (LEFT - 10, middle))?;
    let corners = [(LEFT, middle - 8), (place(ratio), middle + 8)];
    root.draw(&Rectangle::new(corners, colour.mix(0.75).filled()))?;
    root.draw(&line((place(least), middle), (place(most), middle), 2))?;
    for end in [least, most].map(place) {
        root.draw(&line((end, middle - 4), (end, middle + 4), 2))?;
    }
    if let Some(goal) = row.goal_ratio().map(place) {
        root.draw(&line((goal, middle - 12), (goal, middle + 12), 3))?;
    }
    let beyond = if ratio > MOST { " →" } else { "" };
    root.draw_text(&format!("{}{beyond}", number(ratio)), &text(13, HPos::Left), (RIGHT + 12, middle))?;
    Ok(())
}
