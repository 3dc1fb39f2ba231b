//! Plots, each as SVG and as PNG: one line a series, rings beside it. Lines that lie on one another are series that come to the same.

mod pixels;

use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;

use crate::error::{Error, Result};
use crate::output::OutputFile;

const WIDTH_AND_HEIGHT: (u32, u32) = (960, 560);
/// Where the names of the series begin.
const NAMES_LEFT: u32 = 780;
/// Text is of one height, the one that a PNG has a font of.
const TEXT: (&str, i32) = ("sans-serif", pixels::TEXT_HEIGHT);
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

/// What a plot shows.
pub(super) struct Plot<'a> {
    pub(super) title: &'a str,
    pub(super) x_label: &'a str,
    /// The horizontal axis is logarithmic; its values are above 0.
    pub(super) log_x: bool,
    pub(super) series: Vec<Series<'a>>,
}

/// One name and colour.
pub(super) struct Series<'a> {
    pub(super) name: &'a str,
    /// Joined by a line.
    pub(super) line: Vec<(f64, f64)>,
    pub(super) rings: Vec<(f64, f64)>,
}

impl<'a> Series<'a> {
    /// A line without rings.
    pub(super) fn line(name: &'a str, line: Vec<(f64, f64)>) -> Series<'a> {
        Series { name, line, rings: Vec::new() }
    }

    fn points(&self) -> impl Iterator<Item = &(f64, f64)> {
        self.line.iter().chain(&self.rings)
    }
}

type DrawResult = std::result::Result<(), Box<dyn std::error::Error>>;
type Bounds = (f64, f64, f64);

impl Plot<'_> {
    /// Writes NAME.svg and NAME.png into a folder.
    pub(super) fn write(&self, folder: &Path, name: &str) -> Result<()> {
        let wrong = |error| Error::input(format_args!("{name}: {error}"));
        OutputFile::write_whole(&folder.join(format!("{name}.svg")), self.svg().map_err(wrong)?.as_bytes())?;
        OutputFile::write_whole(&folder.join(format!("{name}.png")), &self.png().map_err(wrong)?)
    }

    fn svg(&self) -> std::result::Result<String, Box<dyn std::error::Error>> {
        let mut svg = String::new();
        self.draw(SVGBackend::with_string(&mut svg, WIDTH_AND_HEIGHT).into_drawing_area())?;
        Ok(svg)
    }

    fn png(&self) -> std::result::Result<Vec<u8>, Box<dyn std::error::Error>> {
        pixels::png(WIDTH_AND_HEIGHT, |pixels| self.draw(pixels.into_drawing_area()))
    }

    fn draw<B: DrawingBackend>(&self, root: DrawingArea<B, Shift>) -> DrawResult
    where
        B::ErrorType: 'static,
    {
        root.fill(&WHITE)?;
        let (plane, names) = root.split_horizontally(NAMES_LEFT);
        let points = || self.series.iter().flat_map(Series::points);
        let (low, high) =
            points().fold((f64::MAX, f64::MIN), |(low, high), (x, _)| (low.min(*x), high.max(*x)));
        let most = points().map(|(_, y)| *y).fold(0.0, f64::max);
        let bounds = (low, high, if most > 0.0 { most * 1.05 } else { 1.0 });
        if self.log_x {
            self.draw_log(&plane, bounds)?
        } else {
            self.draw_linear(&plane, bounds)?
        }
        for (index, series) in self.series.iter().enumerate() {
            let height = 60 + 24 * index as i32;
            names.draw(&PathElement::new([(4, height), (26, height)], colour(index).stroke_width(2)))?;
            names.draw(&Text::new(series.name.to_owned(), (34, height - 8), TEXT))?;
        }
        root.present()?;
        Ok(())
    }

    fn draw_log<B: DrawingBackend>(
        &self,
        plane: &DrawingArea<B, Shift>,
        (low, high, top): Bounds,
    ) -> DrawResult
    where
        B::ErrorType: 'static,
    {
        let mut chart =
            self.frame(plane).build_cartesian_2d((low * 0.9..high * 1.1).log_scale(), 0.0..top)?;
        let mut mesh = chart.configure_mesh();
        mesh.x_desc(self.x_label).x_label_formatter(&number).y_label_formatter(&number);
        mesh.label_style(TEXT).axis_desc_style(TEXT).draw()?;
        for (index, series) in self.series.iter().enumerate() {
            chart.draw_series(LineSeries::new(series.line.iter().copied(), colour(index).stroke_width(2)))?;
            chart.draw_series(series.rings.iter().map(|ring| Circle::new(*ring, 4, colour(index))))?;
        }
        Ok(())
    }

    fn draw_linear<B: DrawingBackend>(
        &self,
        plane: &DrawingArea<B, Shift>,
        (low, high, top): Bounds,
    ) -> DrawResult
    where
        B::ErrorType: 'static,
    {
        let right = if high > low { high } else { low + 1.0 };
        let mut chart = self.frame(plane).build_cartesian_2d(low.min(0.0)..right, 0.0..top)?;
        let mut mesh = chart.configure_mesh();
        mesh.x_desc(self.x_label).x_label_formatter(&number).y_label_formatter(&number);
        mesh.label_style(TEXT).axis_desc_style(TEXT).draw()?;
        for (index, series) in self.series.iter().enumerate() {
            chart.draw_series(LineSeries::new(series.line.iter().copied(), colour(index).stroke_width(2)))?;
            chart.draw_series(series.rings.iter().map(|ring| Circle::new(*ring, 4, colour(index))))?;
        }
        Ok(())
    }

    fn frame<'a, 'b, B: DrawingBackend>(&self, plane: &'a DrawingArea<B, Shift>) -> ChartBuilder<'a, 'b, B> {
        let mut builder = ChartBuilder::on(plane);
        builder.caption(self.title, TEXT).margin(12).x_label_area_size(48).y_label_area_size(72);
        builder
    }
}

fn colour(index: usize) -> RGBColor {
    COLOURS[index % COLOURS.len()]
}

/// As short as it is exact enough.
fn number(value: &f64) -> String {
    let digits = format!("{value:.3}");
    digits.trim_end_matches('0').trim_end_matches('.').to_owned()
}
