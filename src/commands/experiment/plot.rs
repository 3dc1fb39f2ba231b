//! Plots, as SVG: one line a format over the sizes of frames.

use plotters::prelude::*;

use super::formulas::Figures;
use super::inline::Row;
use crate::error::{Error, Result};

const WIDTH_AND_HEIGHT: (u32, u32) = (900, 560);

/// What of the figures a plot shows.
pub(super) type Value = fn(&Figures) -> f64;

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
    let most = rows.iter().map(|row| of(&row.measured).max(of(&row.computed))).fold(0.0, f64::max);
    let mut chart = ChartBuilder::on(&root)
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
        let colour = Palette99::pick(index).to_rgba();
        let own = || rows.iter().filter(move |row| row.format == name);
        chart
            .draw_series(LineSeries::new(own().map(|row| (row.size as f64, of(&row.measured))), colour))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour));
        chart.draw_series(own().map(|row| Circle::new((row.size as f64, of(&row.computed)), 4, colour)))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK)
        .draw()?;
    root.present()?;
    Ok(())
}
