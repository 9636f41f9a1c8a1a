//! What was found as a table for people: an id a line, cut to the terminal.

use std::borrow::Cow;

use console::{Alignment, Term, measure_text_width, pad_str, strip_ansi_codes, truncate_str};

/// The width of the terminal on stdout; `None` when stdout goes elsewhere.
pub fn terminal_width() -> Option<usize> {
    let stdout = Term::stdout();
    let (_, columns) = stdout.is_term().then(|| stdout.size_checked()).flatten()?;
    (columns > 0).then_some(usize::from(columns))
}

/// Draws the table, without a line break at its end. Nothing is cut without a `width`. The ids, in the first
/// column, are never cut while the terminal has room for them; the last column takes what room is left.
pub fn draw<const N: usize>(heading: [&str; N], rows: &[[String; N]], width: Option<usize>) -> String {
    let rows = rows.iter().map(|row| row.each_ref().map(|cell| plain(cell)));
    let lines: Vec<[String; N]> = std::iter::once(heading.map(str::to_owned)).chain(rows).collect();
    let limit = width.unwrap_or(usize::MAX);
    let widths: [usize; N] = std::array::from_fn(|column| {
        let most = if column == 0 { limit / 2 } else { limit / 4 };
        let widths = lines.iter().map(|cells| measure_text_width(&cells[column]));
        widths.max().unwrap_or(0).min(most)
    });
    let draw_line = |cells: &[String; N]| {
        let cells = cells.iter().enumerate().map(|(column, cell)| match column {
            0 => pad(cell, widths[0]),
            _ if column + 1 == N => Cow::from(cell),
            _ => cut_and_pad(cell, widths[column]),
        });
        let line = cells.collect::<Vec<_>>().join("  ");
        truncate_str(line.trim_end(), limit, "…").into_owned()
    };
    lines.iter().map(draw_line).collect::<Vec<_>>().join("\n")
}

/// Text from elsewhere on one line, with nothing in it that a terminal would obey.
pub fn plain(text: &str) -> String {
    strip_ansi_codes(text)
        .split(|char: char| char.is_whitespace() || char.is_control())
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

fn pad(text: &str, width: usize) -> Cow<'_, str> {
    pad_str(text, width, Alignment::Left, None)
}

fn cut_and_pad(text: &str, width: usize) -> Cow<'_, str> {
    pad_str(text, width, Alignment::Left, Some("…"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADING: [&str; 3] = ["ID", "TAGS", "DESCRIPTION"];

    fn rows() -> Vec<[String; 3]> {
        let description = "Adds one to\n a  number, and does it well";
        let rows = [["binary-increment-tool", "math, utils", description], ["übersetzer", "", ""]];
        rows.map(|row| row.map(str::to_owned)).into()
    }

    #[test]
    fn columns_are_aligned_and_nothing_is_cut_off_a_terminal() {
        assert_eq!(
            draw(HEADING, &rows(), None),
            "ID                     TAGS         DESCRIPTION\n\
             binary-increment-tool  math, utils  Adds one to a number, and does it well\n\
             übersetzer"
        );
    }

    #[test]
    fn a_line_is_as_wide_as_the_terminal_at_most() {
        for width in [1, 10, 24, 40, 60] {
            let table = draw(HEADING, &rows(), Some(width));
            assert!(table.lines().all(|line| measure_text_width(line) <= width));
        }
        assert_eq!(
            draw(HEADING, &rows(), Some(40)).lines().nth(1),
            Some("binary-increment-tool  math, uti…  Adds…")
        );
    }

    #[test]
    fn a_description_cannot_command_the_terminal() {
        assert_eq!(plain("a\u{1b}[31mred\u{1b}]0;title\u{7}\r\nb"), "ared b");
    }
}
