//! Tables with aligned numbers and bars of block characters, for experiments.

use super::{dim, text};

/// The widest bar.
const BAR: usize = 24;

/// A bar narrower than this tells nothing; it is left out.
const NARROWEST_BAR: usize = 6;

/// Between two columns.
const GAP: usize = 3;

/// A table: the first column is text, the others are numbers or short words, aligned right.
///
/// ```
/// # use kata_lab::report::Table;
/// let mut table = Table::new(["variant", "charges"]);
/// table.row(["no key", "583"]).bar(583.0);
/// table.row(["reference", "200"]).bar(200.0);
/// table.remark("yours", "not started");
/// ```
#[derive(Debug, Clone)]
pub struct Table {
    headings: Vec<String>,
    rows: Vec<Row>,
}

/// One row; see [`Table::row`].
#[derive(Debug, Clone, Default)]
pub struct Row {
    cells: Vec<String>,
    remark: Option<String>,
    bar: Option<f64>,
}

impl Row {
    /// A bar after the row, as long as this value is large among those of the table.
    pub fn bar(&mut self, value: f64) -> &mut Self {
        self.bar = Some(value).filter(|value| value.is_finite() && *value >= 0.0);
        self
    }
}

impl Table {
    /// A table with these headings.
    pub fn new<T: Into<String>>(headings: impl IntoIterator<Item = T>) -> Self {
        Self {
            headings: headings.into_iter().map(Into::into).collect(),
            rows: Vec::new(),
        }
    }

    /// One more row. Cells beyond the headings are not shown; missing ones stay empty.
    pub fn row<T: Into<String>>(&mut self, cells: impl IntoIterator<Item = T>) -> &mut Row {
        self.push(Row {
            cells: cells.into_iter().map(Into::into).collect(),
            ..Row::default()
        })
    }

    /// A row that has words instead of numbers: `yours      –   not started (step 1 of 9)`.
    pub fn remark(&mut self, name: impl Into<String>, remark: impl Into<String>) {
        self.push(Row {
            cells: vec![name.into(), "–".to_owned()],
            remark: Some(remark.into()),
            bar: None,
        });
    }

    fn push(&mut self, row: Row) -> &mut Row {
        self.rows.push(row);
        self.rows.last_mut().expect("a row was added")
    }

    /// The table as text, indented by two.
    pub fn render(&self, columns: usize) -> String {
        let widths: Vec<_> = (0..self.headings.len())
            .map(|column| {
                let cells = self.rows.iter().filter_map(|row| row.cells.get(column));
                let all = cells
                    .chain(self.headings.get(column))
                    .map(|cell| text::width(cell));
                all.max().unwrap_or_default()
            })
            .collect();
        let gap = " ".repeat(GAP);
        let align = |column: usize, cell: &str| match column {
            0 => format!("  {}", text::pad(cell, widths[0])),
            _ => format!("{gap}{}", text::pad_left(cell, widths[column])),
        };
        let used = 2 + widths.iter().sum::<usize>() + GAP * widths.len();
        let room = columns.saturating_sub(used).min(BAR);
        let most = self
            .rows
            .iter()
            .filter_map(|row| row.bar)
            .fold(0.0, f64::max);

        let headings: String = self
            .headings
            .iter()
            .enumerate()
            .map(|(i, h)| align(i, h))
            .collect();
        let mut out = format!("{}\n", dim(headings.trim_end()));
        for row in &self.rows {
            let shown = row.cells.iter().take(widths.len()).enumerate();
            let mut line: String = shown.map(|(i, cell)| align(i, cell)).collect();
            if let Some(remark) = &row.remark {
                let left = columns.saturating_sub(text::width(&line) + GAP);
                line.push_str(&format!("{gap}{}", dim(&text::cut(remark, left))));
            }
            if let Some(value) = row.bar.filter(|_| room >= NARROWEST_BAR && most > 0.0) {
                let missing = widths
                    .iter()
                    .skip(row.cells.len())
                    .map(|width| width + GAP)
                    .sum();
                line.push_str(&" ".repeat(missing));
                line.push_str(&format!("{gap}{}", bar(value / most, room)));
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }
}

/// A bar that fills this share of `room` columns, in eighths of a column.
pub(super) fn bar(share: f64, room: usize) -> String {
    const PARTS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let eighths = (share.clamp(0.0, 1.0) * room as f64 * 8.0).round() as usize;
    // Something is never shown as nothing.
    let eighths = if share > 0.0 { eighths.max(1) } else { 0 };
    format!("{}{}", "█".repeat(eighths / 8), PARTS[eighths % 8])
}
