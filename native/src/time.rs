//! Points in time out of text and numbers: the rules of `batcher/formats/json/timestamps.py`.
//!
//! Laws: what is finer than the unit is floored, and noted. A text that may be a date without separators is left to the
//! reference where the size of a number tells its unit. The notes are for lines in the log; no result depends on them.
//!
//! It is long because text and numbers of one column share its unit and its marks; a third are tests.

use crate::number::Number;

/// How the numbers of a column count.
#[derive(Clone, Copy, PartialEq)]
pub enum Epoch {
    /// Their size tells the unit.
    Auto,
    /// Nothing says it, so none is taken.
    Unstated,
    /// They count units with so many digits below the second.
    Unit(u32),
}

/// What people should know about a column; a unit is its bit in the order of `UNITS`.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
pub struct Marks {
    pub units: u8,
    pub unlikely: u8,
    pub cut: bool,
}

impl Marks {
    fn with(self, more: Marks) -> Marks {
        Marks { units: self.units | more.units, unlikely: self.unlikely | more.unlikely, cut: self.cut | more.cut }
    }
}

/// The marks of all columns of times, by their numbers.
#[derive(Default)]
pub struct Notes {
    kept: Vec<Marks>,
    /// Those of the row at hand that say something new.
    here: Vec<(usize, Marks)>,
}

impl Notes {
    #[inline(always)]
    fn add(&mut self, column: usize, marks: Marks) {
        if self.kept.get(column).is_none_or(|kept| kept.with(marks) != *kept) {
            self.here.push((column, marks));
        }
    }

    /// The row at hand is one.
    #[inline(always)]
    pub fn keep(&mut self) {
        for (column, marks) in self.here.drain(..) {
            if self.kept.len() <= column {
                self.kept.resize(column + 1, Marks::default());
            }
            self.kept[column] = self.kept[column].with(marks);
        }
    }

    /// The row at hand is none.
    pub fn forget(&mut self) {
        self.here.clear();
    }

    /// Hand out the marks by column and begin anew.
    pub fn take(&mut self) -> Vec<Marks> {
        std::mem::take(&mut self.kept)
    }
}

/// Digits below the second of each unit, in the order of their bits.
pub const UNITS: [u32; 4] = [0, 3, 6, 9];

/// Seconds from 1970 to 1973-03-03, where milliseconds begin, and to 2100-01-01.
const LIKELY: (i128, i128) = (100_000_000, 4_102_444_800);

const POWERS: [i64; 10] = [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000, 1_000_000_000];

/// Read the times of one column: `digits` below the second is its unit.
pub struct Clock {
    /// The column's number among those of times.
    number: usize,
    digits: u32,
    epoch: Epoch,
    /// Of the value at hand.
    marks: Marks,
    /// The last day: records that come together were mostly made on one.
    day: ([u8; 10], i64),
}

impl Clock {
    pub fn new(number: usize, digits: u32, epoch: Epoch) -> Clock {
        Clock { number, digits, epoch, marks: Marks::default(), day: (*b"1970-01-01", 0) }
    }

    /// The time that a text in ISO 8601 says, or one of digits alone.
    #[inline]
    pub fn text(&mut self, text: &[u8], notes: &mut Notes) -> Option<i64> {
        let found = self.of_text(text);
        notes.add(self.number, std::mem::take(&mut self.marks));
        found
    }

    /// The time that a number means.
    #[inline]
    pub fn count(&mut self, value: &Number, notes: &mut Notes) -> Option<i64> {
        let found = self.of_number(value);
        notes.add(self.number, std::mem::take(&mut self.marks));
        found
    }

    fn of_text(&mut self, text: &[u8]) -> Option<i64> {
        let Some(date) = text.first_chunk::<10>() else { return self.of_digits(text) };
        if *date != self.day.0 {
            if date[4] != b'-' {
                return self.of_digits(text);
            }
            self.day = (*date, day(date)?);
        }
        self.of_time(&text[10..], self.day.1)
    }

    /// Digits alone, as they would stand in JSON.
    fn of_digits(&mut self, text: &[u8]) -> Option<i64> {
        let digits = text.strip_prefix(b"-").unwrap_or(text);
        if digits.is_empty() || digits.len() > 18 || !digits.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let compact = matches!(digits.len(), 4 | 8 | 12 | 14 | 17) && matches!(&digits[..2], b"19" | b"20");
        if self.epoch == Epoch::Auto && compact {
            return None;
        }
        let mantissa = digits.iter().fold(0, |sum, digit| sum * 10 + (digit - b'0') as u64);
        self.of_number(&Number {
            negative: digits.len() < text.len(),
            mantissa,
            exponent: 0,
            integer: true,
            big: false,
            text,
        })
    }

    /// What stands behind the date: nothing, or a time and perhaps a zone.
    fn of_time(&mut self, rest: &[u8], day: i64) -> Option<i64> {
        let mut seconds = day * 86_400;
        let mut fraction = 0;
        if !rest.is_empty() {
            if !matches!(rest[0], b'T' | b't' | b' ') {
                return None;
            }
            let hour = two(rest, 1)?;
            let (mut minute, mut second, mut at) = (0, 0, 3);
            if rest.get(at) == Some(&b':') {
                minute = two(rest, at + 1)?;
                at += 3;
                if rest.get(at) == Some(&b':') {
                    second = two(rest, at + 1)?;
                    at += 3;
                    if matches!(rest.get(at), Some(b'.' | b',')) {
                        let length = rest[at + 1..].iter().take_while(|byte| byte.is_ascii_digit()).count();
                        fraction = self.fraction(&rest[at + 1..at + 1 + length])?;
                        at += 1 + length;
                    }
                }
            }
            if hour > 23 || minute > 59 || second > 59 {
                return None;
            }
            seconds += hour * 3600 + minute * 60 + second - east(&rest[at..])?;
        }
        seconds.checked_mul(POWERS[self.digits as usize])?.checked_add(fraction)
    }

    /// Digits behind the second, in the unit of the column. Cutting them is flooring: they count forward.
    #[inline(always)]
    fn fraction(&mut self, digits: &[u8]) -> Option<i64> {
        if digits.is_empty() {
            return None;
        }
        let (kept, cut) = digits.split_at(digits.len().min(self.digits as usize));
        self.marks.cut |= cut.iter().any(|digit| *digit != b'0');
        let value = kept.iter().fold(0, |sum, digit| sum * 10 + (digit - b'0') as i64);
        Some(value * POWERS[self.digits as usize - kept.len()])
    }

    fn of_number(&mut self, value: &Number) -> Option<i64> {
        if value.big || self.epoch == Epoch::Unstated {
            return None;
        }
        if value.mantissa == 0 {
            return Some(0);
        }
        let signed = if value.negative { -(value.mantissa as i128) } else { value.mantissa as i128 };
        let unit = match self.epoch {
            Epoch::Unit(digits) => digits,
            _ => self.guess(value, signed)?,
        };
        let shift = value.exponent + self.digits as i32 - unit as i32;
        let scaled = if shift >= 0 {
            signed.checked_mul(10i128.checked_pow(shift as u32)?)?
        } else if let Some(by) = 10i128.checked_pow(shift.unsigned_abs()) {
            self.marks.cut |= signed % by != 0;
            signed.div_euclid(by)
        } else {
            self.marks.cut = true;
            -(value.negative as i128)
        };
        i64::try_from(scaled).ok()
    }

    /// The unit that a number's size tells, and notes about it.
    fn guess(&mut self, value: &Number, signed: i128) -> Option<u32> {
        let bit = match value.mantissa.ilog10() as i32 + value.exponent {
            ..=10 => 0,
            11..=13 => 1,
            14..=16 => 2,
            17..=19 => 3,
            _ => return None,
        };
        self.marks.units |= 1 << bit;
        // In the number's own steps: below the point they change nothing about these bounds.
        let whole = if value.exponent >= 0 {
            signed.checked_mul(10i128.checked_pow(value.exponent as u32)?)?
        } else {
            10i128
                .checked_pow(value.exponent.unsigned_abs())
                .map_or(-(value.negative as i128), |by| signed.div_euclid(by))
        };
        let one = POWERS[UNITS[bit] as usize] as i128;
        if whole < LIKELY.0 * one || whole >= LIKELY.1 * one {
            self.marks.unlikely |= 1 << bit;
        }
        Some(UNITS[bit])
    }
}

/// Days from 1970-01-01 to `YYYY-MM-DD`, years 0 to 9999.
pub fn of_date(text: &[u8]) -> Option<i32> {
    day(text.try_into().ok()?).map(|days| days as i32)
}

fn day(text: &[u8; 10]) -> Option<i64> {
    if text[4] != b'-' || text[7] != b'-' {
        return None;
    }
    days(two(text, 0)? * 100 + two(text, 2)?, two(text, 5)?, two(text, 8)?)
}

/// Days from 1970-01-01 in the proleptic Gregorian calendar.
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    const LENGTHS: [i64; 12] = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    if !(1..=12).contains(&month) || day < 1 {
        return None;
    }
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    if day > LENGTHS[month as usize - 1] + (leap && month == 2) as i64 {
        return None;
    }
    // Years that begin in March: the leap day is the last of its year.
    let (year, month) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let (era, in_era) = (year.div_euclid(400), year.rem_euclid(400));
    Some(era * 146_097 + in_era * 365 + in_era / 4 - in_era / 100 + (153 * month + 2) / 5 + day - 1 - 719_468)
}

#[inline(always)]
fn two(text: &[u8], at: usize) -> Option<i64> {
    let pair = text.get(at..at + 2)?;
    let (tens, ones) = (pair[0].wrapping_sub(b'0'), pair[1].wrapping_sub(b'0'));
    (tens < 10 && ones < 10).then(|| (tens * 10 + ones) as i64)
}

/// Seconds east of Greenwich.
#[inline(always)]
fn east(zone: &[u8]) -> Option<i64> {
    let (sign, rest) = match zone {
        [] | [b'Z' | b'z'] => return Some(0),
        [sign @ (b'+' | b'-'), rest @ ..] => (sign, rest),
        _ => return None,
    };
    let (hours, minutes) = match rest.len() {
        2 => (two(rest, 0)?, 0),
        4 => (two(rest, 0)?, two(rest, 2)?),
        5 if rest[2] == b':' => (two(rest, 0)?, two(rest, 3)?),
        _ => return None,
    };
    if hours > 23 || minutes > 59 {
        return None;
    }
    let seconds = hours * 3600 + minutes * 60;
    Some(if *sign == b'-' { -seconds } else { seconds })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, digits: u32, epoch: Epoch) -> (Option<i64>, Marks) {
        let mut notes = Notes::default();
        let found = Clock::new(0, digits, epoch).text(text.as_bytes(), &mut notes);
        notes.keep();
        (found, notes.take()[0])
    }

    #[test]
    fn texts_in_iso_8601_are_read_and_all_others_are_left() {
        for (text, wanted) in [
            ("1970-01-01", Some(0)),
            ("1970-01-02T00", Some(86_400_000)),
            ("1970-01-01 00:01", Some(60_000)),
            ("1970-01-01t00:00:01.5z", Some(1_500)),
            ("1970-01-01T00:00:01,5+0100", Some(-3_598_500)),
            ("1969-12-31T23:59:59.9995", Some(-1)),
            ("0000-01-01", Some(-62_167_219_200_000)),
            ("2023-02-29", None),
            ("2024-02-29", Some(1_709_164_800_000)),
            ("1970-01-01T24:00:00", None),
            ("1970-01-01T00:00:60", None),
            ("1970-01-01Z", None),
            ("1970-01-01T00:00:01.", None),
            ("1970-01-01T00:00Z", Some(0)),
            ("1970-01-01T00:00+24", None),
            ("1970-01-01T0", None),
            ("2026", None),
            ("20260131", None),
            ("1700000000", Some(1_700_000_000_000)),
            ("-1700000000123", Some(-1_700_000_000_123)),
            ("", None),
            ("now", None),
        ] {
            assert_eq!(read(text, 3, Epoch::Auto).0, wanted, "{text}");
        }
    }

    #[test]
    fn what_is_cut_or_unlikely_is_noted() {
        assert!(read("1970-01-01T00:00:00.0001", 3, Epoch::Auto).1.cut);
        assert!(!read("1970-01-01T00:00:00.1000", 3, Epoch::Auto).1.cut);
        assert_eq!(read("1700000000123", 3, Epoch::Auto).1, Marks { units: 2, unlikely: 0, cut: false });
        assert_eq!(read("99999999", 3, Epoch::Auto).1, Marks { units: 1, unlikely: 1, cut: false });
        assert_eq!(read("20260131", 3, Epoch::Unit(0)).0, Some(20_260_131_000));
        assert_eq!(read("20260131", 3, Epoch::Unstated).0, None);
    }

    #[test]
    fn a_row_that_is_none_leaves_no_marks() {
        let (mut notes, mut clock) = (Notes::default(), Clock::new(0, 0, Epoch::Auto));
        assert_eq!(clock.text(b"1970-01-01T00:00:00.5", &mut notes), Some(0));
        notes.forget();
        assert_eq!(clock.text(b"1970-01-01T00:00:00.0", &mut notes), Some(0));
        notes.keep();
        assert_eq!(notes.take(), [Marks::default()]);
    }

    #[test]
    fn days_count_on_from_one_to_the_next() {
        let mut before = days(0, 1, 1).unwrap() - 1;
        let last = if cfg!(miri) { 9 } else { 9999 };
        for year in 0..=last {
            for month in 1..=12 {
                for day in 1..=31 {
                    if let Some(found) = days(year, month, day) {
                        assert_eq!(found, before + 1, "{year}-{month}-{day}");
                        before = found;
                    }
                }
            }
        }
        assert_eq!(before, days(last, 12, 31).unwrap());
    }
}
