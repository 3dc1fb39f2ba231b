//! Plots, as SVG: one line a format over the sizes of frames. Lines that lie on one another are formats that cost the same.

use plotters::prelude::*;

use super::formulas::Figures;
use super::inline::Row;
use crate::error::{Error, Result};

const WIDTH_AND_HEIGHT: (u32, u32) = (960, 560);
/// Where the names of the formats begin.
const NAMES_LEFT: u32 = 800;
/// Eight colours that colour-blind readers tell apart (Okabe and Ito, "Color Universal Design", 2008); the yellow darker.
const COLOURS: [RGBColor; 8] = [
    RGBColor(0, 0, 0),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(0, 158, 115),
    RGBColor(190, 170, 20),
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(204, 121, 167),
];

/// What a plot shows of a row's measured or computed figures.
pub(super) type Value = fn(&Row, &Figures) -> f64;

/// What is measured as a line, what is computed as rings.
pub(super) fn lines(title: &str, rows: &[Row], of: Value) -> Result<String> {
    let mut svg = String::new();
    draw(&mut svg, title, rows, of).map_err(|error| Error::input(format_args!("{title}: {error}")))?;
    Ok(svg)
}

fn draw(
    svg: &mut String,
    title: &str,
    rows: &[Row],
    of: Value,
) -> std::result::Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::with_string(svg, WIDTH_AND_HEIGHT).into_drawing_area();
    root.fill(&WHITE)?;
    let sizes = rows.iter().map(|row| row.size as f64);
    let (low, high) = sizes.fold((f64::MAX, 0.0_f64), |(low, high), size| (low.min(size), high.max(size)));
    let most = rows.iter().map(|row| of(row, &row.measured).max(of(row, &row.computed))).fold(0.0, f64::max);
    let (plane, names_area) = root.split_horizontally(NAMES_LEFT);
    let mut chart = ChartBuilder::on(&plane)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d((low * 0.9..high * 1.1).log_scale(), 0.0..most * 1.05)?;
    chart
        .configure_mesh()
        .x_desc("bytes of a frame with its FCS; rings: computed")
        .x_label_formatter(&|size| format!("{size:.0}"))
        .draw()?;
    let mut names: Vec<&str> = rows.iter().map(|row| row.format).collect();
    names.dedup();
    for (index, name) in names.into_iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let own = || rows.iter().filter(move |row| row.format == name);
        let line = own().map(|row| (row.size as f64, of(row, &row.measured)));
        chart.draw_series(LineSeries::new(line, colour.stroke_width(2)))?;
        let ring = |row: &Row| Circle::new((row.size as f64, of(row, &row.computed)), 4, colour);
        chart.draw_series(own().map(ring))?;
        let height = 60 + 24 * index as i32;
        names_area.draw(&PathElement::new([(4, height), (26, height)], colour.stroke_width(2)))?;
        names_area.draw(&Text::new(name, (34, height - 7), ("sans-serif", 15)))?;
    }
    root.present()?;
    Ok(())
}
