//! Numbers as they are written, and exact conversions of them.
//!
//! Laws: a conversion gives the value that was written, or None. Only floats round, to the nearest, and only what is
//! written with a fraction or an exponent: an integer that a float cannot hold is None. None is never a refusal; it
//! leaves the value to the reference.

/// A number: `mantissa * 10^exponent`, the sign apart.
#[derive(Clone, Copy)]
pub struct Number<'a> {
    pub negative: bool,
    pub mantissa: u64,
    pub exponent: i32,
    /// It is written with neither fraction nor exponent.
    pub integer: bool,
    /// Mantissa or exponent hold more than there is room for; then both mean nothing, and `text` alone does.
    pub big: bool,
    pub text: &'a [u8],
}

/// Beyond this an exponent is not worth an exact answer.
const FAR: i32 = 100_000;

const POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22,
];

impl Number<'_> {
    /// The value without its sign, where it is an integer of at most 64 bits.
    #[inline(always)]
    pub fn whole(&self) -> Option<u64> {
        if self.exponent == 0 && !self.big { Some(self.mantissa) } else { self.whole_slow() }
    }

    #[inline(never)]
    fn whole_slow(&self) -> Option<u64> {
        if self.big {
            return None;
        }
        if self.mantissa == 0 {
            return Some(0);
        }
        let by = 10u64.checked_pow(self.exponent.unsigned_abs())?;
        if self.exponent > 0 {
            return self.mantissa.checked_mul(by);
        }
        self.mantissa.is_multiple_of(by).then_some(self.mantissa / by)
    }

    #[inline(always)]
    pub fn f64(&self) -> Option<f64> {
        if !self.big && self.mantissa <= 1 << 53 && self.exponent.abs() <= 22 {
            // Both are exact, so one rounding is all there is.
            let (value, power) = (self.mantissa as f64, POWERS[self.exponent.unsigned_abs() as usize]);
            let value = if self.exponent < 0 { value / power } else { value * power };
            return Some(if self.negative { -value } else { value });
        }
        self.f64_slow()
    }

    #[cold]
    fn f64_slow(&self) -> Option<f64> {
        let value: f64 = self.written()?.parse().ok()?;
        let exact = !self.integer || !self.big && value.abs() as u128 == self.mantissa as u128;
        (exact && value.is_finite()).then_some(value)
    }

    pub fn f32(&self) -> Option<f32> {
        let value: f32 = self.written()?.parse().ok()?;
        let exact = !self.integer || !self.big && value.abs() as u128 == self.mantissa as u128;
        // The reference rounds exponents of three digits twice.
        (exact && value.is_finite() && self.exponent.abs() < 100 && !self.big).then_some(value)
    }

    fn written(&self) -> Option<&str> {
        std::str::from_utf8(self.text).ok()
    }

    /// The number times `10^scale` as 128 bits, where it is an integer of at most `precision` digits.
    pub fn decimal(&self, precision: u32, scale: i32) -> Option<i128> {
        if self.big {
            let words = self.decimal_wide(precision, scale)?;
            return Some((words[0] as u128 | (words[1] as u128) << 64) as i128);
        }
        if self.mantissa == 0 {
            return Some(0);
        }
        let shift = self.exponent.checked_add(scale)?;
        let by = 10u128.checked_pow(shift.unsigned_abs())?;
        let value = if shift >= 0 {
            (self.mantissa as u128).checked_mul(by)?
        } else if (self.mantissa as u128).is_multiple_of(by) {
            self.mantissa as u128 / by
        } else {
            return None;
        };
        if value >= 10u128.checked_pow(precision)? {
            return None;
        }
        Some(if self.negative { -(value as i128) } else { value as i128 })
    }

    /// As `decimal`, in 256 bits as four words, the lowest first.
    pub fn decimal_wide(&self, precision: u32, scale: i32) -> Option<[u64; 4]> {
        let (mut digits, mut exponent) = self.all_digits()?;
        while digits.last() == Some(&0) {
            digits.pop();
            exponent += 1;
        }
        if digits.is_empty() {
            return Some([0; 4]);
        }
        let zeros = exponent.checked_add(scale)?;
        if zeros < 0 || digits.len() + zeros as usize > precision as usize {
            return None;
        }
        digits.resize(digits.len() + zeros as usize, 0);
        let mut words = [0u64; 4];
        for digit in digits {
            let mut carry = digit as u128;
            for word in &mut words {
                carry += *word as u128 * 10;
                *word = carry as u64;
                carry >>= 64;
            }
        }
        Some(if self.negative { negated(words) } else { words })
    }

    /// All digits without leading zeros, and the exponent of the last one.
    fn all_digits(&self) -> Option<(Vec<u8>, i32)> {
        let end = self.text.iter().position(|byte| matches!(byte, b'e' | b'E')).unwrap_or(self.text.len());
        let mut digits = Vec::with_capacity(end);
        let (mut exponent, mut fraction) = (0, false);
        for byte in &self.text[..end] {
            match byte {
                b'.' => fraction = true,
                b'0'..=b'9' => {
                    exponent -= fraction as i32;
                    if *byte != b'0' || !digits.is_empty() {
                        digits.push(byte - b'0');
                    }
                }
                _ => {}
            }
        }
        if end < self.text.len() {
            let power: i32 = std::str::from_utf8(&self.text[end + 1..]).ok()?.parse().ok()?;
            if power.abs() >= FAR {
                return None;
            }
            exponent += power;
        }
        Some((digits, exponent))
    }
}

fn negated(words: [u64; 4]) -> [u64; 4] {
    let mut carry = true;
    words.map(|word| {
        let (value, over) = (!word).overflowing_add(carry as u64);
        carry = over;
        value
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cursor::Cursor;

    fn read<T>(text: &str, made: impl Fn(Number) -> T) -> T {
        let room = format!("{text}}}");
        made(Cursor::new(room.as_bytes(), room.len()).number().unwrap())
    }

    #[test]
    fn integers_are_exact_or_left() {
        for (text, value) in [
            ("0", Some(0)),
            ("5.0", Some(5)),
            ("5e0", Some(5)),
            ("1E+2", Some(100)),
            ("100e-2", Some(1)),
            ("1.5", None),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("0.00000000000000000000", Some(0)),
            ("1e99999999999", None),
        ] {
            assert_eq!(read(text, |number| number.whole()), value, "{text}");
        }
    }

    #[test]
    fn floats_round_fractions_and_keep_integers() {
        assert_eq!(read("0.1", |number| number.f64()), Some(0.1));
        assert_eq!(read("9007199254740993.0", |number| number.f64()), Some(9007199254740992.0));
        assert_eq!(read("9007199254740993", |number| number.f64()), None);
        assert_eq!(read("1e400", |number| number.f64()), None);
        assert_eq!(read("1e-400", |number| number.f64()), Some(0.0));
        assert_eq!(read("16777217", |number| number.f32()), None);
        assert_eq!(read("16777217.0", |number| number.f32()), Some(16777216.0));
        assert!(read("-0", |number| number.f64()).is_some_and(f64::is_sign_negative));
    }

    #[test]
    fn decimals_are_exact_in_precision_and_scale() {
        assert_eq!(read("12.50", |number| number.decimal(4, 2)), Some(1250));
        assert_eq!(read("-12.5", |number| number.decimal(4, 2)), Some(-1250));
        assert_eq!(read("123.45", |number| number.decimal(4, 2)), None);
        assert_eq!(read("1.255", |number| number.decimal(10, 2)), None);
        assert_eq!(read("1700", |number| number.decimal(10, -2)), Some(17));
        assert_eq!(
            read("123456789012345678901234567890.5", |number| number.decimal(38, 1)),
            Some(1234567890123456789012345678905)
        );
        assert_eq!(read("-1", |number| number.decimal_wide(76, 0)), Some([u64::MAX; 4]));
        assert_eq!(read("1e70", |number| number.decimal_wide(60, 0)), None);
    }
}
