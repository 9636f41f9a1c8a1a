//! Times as people read them. Pure.

use std::time::Duration;

use indicatif::HumanDuration;

/// Milliseconds since the epoch as a date and a time of day, in UTC.
pub fn utc(ms: u64) -> String {
    let (seconds, ms) = (ms / 1_000, ms % 1_000);
    let (year, month, day) = date(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

/// How long ago something was, in one unit.
pub fn age(ms: u64) -> String {
    format!("{:#}", HumanDuration(Duration::from_millis(ms)))
}

/// Year, month and day, so many days after the epoch.
fn date(days: u64) -> (u64, u64, u64) {
    /// From the first of March of the year 0 to the epoch.
    const BEFORE: u64 = 719_468;
    /// In 400 years, after which the calendar repeats itself.
    const CYCLE: u64 = 146_097;
    let (cycle, day) = ((days + BEFORE) / CYCLE, (days + BEFORE) % CYCLE);
    // Years begin in March here, so that a leap day is the last day of its year.
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (400 * cycle + year + next, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_date_and_a_time_of_day() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_735_689_599_999, "2024-12-31T23:59:59.999Z"),
            (1_740_787_200_000, "2025-03-01T00:00:00.000Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(utc(ms), text);
        }
        assert!(utc(u64::MAX).ends_with('Z'));
    }

    #[test]
    fn an_age_is_short() {
        for (ms, text) in [(0, "0s"), (90_000, "2m"), (7_200_000, "2h"), (259_200_000, "3d")] {
            assert_eq!(age(ms), text);
        }
    }
}
