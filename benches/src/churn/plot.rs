//! The picture: one panel for each quantity over time, all from zero.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use super::reading::{QUANTITIES, Reading};

const WIDTH: u32 = 900;
const PANEL_HEIGHT: u32 = 140;

/// Writes it.
pub fn draw(path: &Path, readings: &[Reading]) -> Result<()> {
    let size = (WIDTH, PANEL_HEIGHT * QUANTITIES.len() as u32);
    let area = SVGBackend::new(path, size).into_drawing_area();
    let drawn = area
        .fill(&WHITE)
        .map_err(|error| anyhow!("{}: {error}", path.display()));
    drawn?;
    let end_min = readings.last().map_or(1.0, minutes).max(0.1);
    let panels = area.split_evenly((QUANTITIES.len(), 1));
    for ((quantity, name), panel) in QUANTITIES.iter().enumerate().zip(&panels) {
        let points = readings.iter().map(|r| (minutes(r), r.values[quantity]));
        let points: Vec<_> = points.filter(|(_, value)| !value.is_nan()).collect();
        let most = points.iter().map(|(_, value)| *value).fold(1.0, f64::max);
        panel_of(panel, name, (end_min, most * 1.1), points)
            .map_err(|error| anyhow!("{}: {error}", path.display()))?;
    }
    area.present()
        .map_err(|error| anyhow!("{}: {error}", path.display()))
}

fn minutes(reading: &Reading) -> f64 {
    reading.at.as_secs_f64() / 60.0
}

type Panel<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type DrawError<'a> = DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>;

fn panel_of<'a>(
    panel: &Panel<'a>,
    name: &str,
    (end_min, most): (f64, f64),
    points: Vec<(f64, f64)>,
) -> Result<(), DrawError<'a>> {
    let mut chart = ChartBuilder::on(panel)
        .caption(name, ("sans-serif", 14))
        .margin(6)
        .x_label_area_size(20)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..end_min, 0.0..most)?;
    chart
        .configure_mesh()
        .y_labels(4)
        .x_label_formatter(&|minute| format!("{minute:.0} min"))
        .light_line_style(TRANSPARENT)
        .draw()?;
    chart.draw_series(LineSeries::new(points, &BLUE))?;
    Ok(())
}
