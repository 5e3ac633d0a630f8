//! Charts: lines over a number or over names, as SVG, so that no font of the system is needed to draw them.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;

/// Width and height in pixels.
const SIZE: (u32, u32) = (900, 540);

/// A line, or one point after the other.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

/// A chart.
#[derive(Debug)]
pub(crate) struct Chart {
    /// Its file, without the ending.
    pub(crate) file: &'static str,
    pub(crate) title: String,
    /// What is to the right, with its unit.
    pub(crate) x: &'static str,
    /// What is upwards, with its unit.
    pub(crate) y: &'static str,
    /// Names of 0, 1, … on the axis to the right, where it is one of names.
    pub(crate) names: Vec<String>,
    pub(crate) lines: Vec<Line>,
}

impl Chart {
    /// A chart over names: each line has one value for each name.
    pub(crate) fn over(
        file: &'static str,
        title: &str,
        (x, y): (&'static str, &'static str),
        names: Vec<String>,
        lines: impl IntoIterator<Item = (String, Vec<f64>)>,
    ) -> Self {
        let lines = lines.into_iter().map(|(name, values)| Line {
            name,
            points: (0..).map(f64::from).zip(values).collect(),
        });
        Self {
            file,
            title: title.to_owned(),
            x,
            y,
            names,
            lines: lines.collect(),
        }
    }

    /// A chart over numbers.
    pub(crate) fn numbers(
        file: &'static str,
        title: &str,
        (x, y): (&'static str, &'static str),
        lines: impl IntoIterator<Item = (String, Vec<(f64, f64)>)>,
    ) -> Self {
        let lines = lines
            .into_iter()
            .map(|(name, points)| Line { name, points });
        Self {
            file,
            title: title.to_owned(),
            x,
            y,
            names: Vec::new(),
            lines: lines.collect(),
        }
    }

    /// How large a part of the values is not above each.
    pub(crate) fn distribution(
        file: &'static str,
        title: &str,
        x: &'static str,
        all: impl IntoIterator<Item = (String, Vec<f64>)>,
    ) -> Self {
        let lines = all.into_iter().map(|(name, mut values)| {
            values.sort_by(f64::total_cmp);
            let n = values.len() as f64;
            let share = |i: usize| 100.0 * (i + 1) as f64 / n;
            let points = values
                .iter()
                .enumerate()
                .map(|(i, value)| (*value, share(i)));
            Line {
                name,
                points: points.collect(),
            }
        });
        Self {
            file,
            title: title.to_owned(),
            x,
            y: "requests, %",
            names: Vec::new(),
            lines: lines.collect(),
        }
    }

    /// Writes it to the folder.
    pub(crate) fn draw(&self, folder: &Path) -> Result<()> {
        let file = folder.join(format!("{}.svg", self.file));
        let wrong =
            |error: &dyn std::fmt::Display| anyhow!("cannot draw {}: {error}", file.display());
        self.draw_to(&file).map_err(|error| wrong(&error))
    }

    fn draw_to(&self, file: &Path) -> Result<(), Box<dyn std::error::Error>> {
        let root = SVGBackend::new(file, SIZE).into_drawing_area();
        root.fill(&WHITE)?;
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let most = |of: &dyn Fn(&(f64, f64)) -> f64| {
            points()
                .map(of)
                .filter(|v| v.is_finite())
                .fold(0.0, f64::max)
        };
        let (x_most, y_most) = (most(&|p| p.0).max(1e-9), most(&|p| p.1).max(1e-9));
        let mut chart = ChartBuilder::on(&root)
            .caption(&self.title, ("sans-serif", 20))
            .margin(16)
            .x_label_area_size(44)
            .y_label_area_size(84)
            .build_cartesian_2d(0.0..x_most * 1.03, 0.0..y_most * 1.05)?;
        let name = |x: &f64| {
            let near = (x - x.round()).abs() < 1e-6;
            let name = self.names.get(x.round() as usize).filter(|_| near);
            name.cloned().unwrap_or_default()
        };
        let short = |v: &f64| crate::report::number(*v);
        let mut mesh = chart.configure_mesh();
        mesh.x_desc(self.x)
            .y_desc(self.y)
            .y_label_formatter(&short)
            .light_line_style(WHITE);
        match self.names.len() {
            0 => mesh.x_label_formatter(&short),
            n => mesh.x_labels(n).x_label_formatter(&name),
        };
        mesh.draw()?;
        for (n, line) in self.lines.iter().enumerate() {
            let color = Palette99::pick(n).to_rgba();
            let points = || line.points.iter().copied();
            chart
                .draw_series(LineSeries::new(points(), color.stroke_width(2)))?
                .label(&line.name)
                .legend(move |(x, y)| {
                    PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2))
                });
            if line.points.len() <= 32 {
                chart.draw_series(points().map(|at| Circle::new(at, 3, color.filled())))?;
            }
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE.mix(0.85))
            .border_style(BLACK.mix(0.3))
            .draw()?;
        root.present()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn charts_have_their_words_as_text() {
        let folder = tempfile::tempdir().unwrap();
        let line = |name: &str, values: Vec<f64>| (name.to_owned(), values);
        let names = ["1", "8", "64"].map(str::to_owned).to_vec();
        let chart = Chart::over(
            "over",
            "Throughput",
            ("connections", "requests/s"),
            names,
            [
                line("cloister", vec![1.0, 2.0, 3.0]),
                line("wasmtime serve", vec![0.5, f64::NAN, 0.5]),
            ],
        );
        chart.draw(folder.path()).unwrap();
        let svg = std::fs::read_to_string(folder.path().join("over.svg")).unwrap();
        for word in [
            "Throughput",
            "connections",
            "requests/s",
            "cloister",
            "wasmtime serve",
            "64",
        ] {
            assert!(svg.contains(word), "{word}");
        }
        let chart = Chart::distribution(
            "part",
            "Cold",
            "ms",
            [line("none", Vec::new()), line("some", vec![3.0, 1.0])],
        );
        assert_eq!(chart.lines[1].points, [(1.0, 50.0), (3.0, 100.0)]);
        chart.draw(folder.path()).unwrap();
    }
}
