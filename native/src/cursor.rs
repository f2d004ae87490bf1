//! The tokens of JSON in one message: spaces, strings, numbers, words.
//!
//! Laws:
//! * Everything JSON forbids is a `Suspect`. Some of what it allows may be one too; that costs time, never a record.
//! * The place never leaves the message. What lies behind it in the same buffer may be looked at, and decides nothing.
//! * A string that is handed out is UTF-8, has no control character, and only escapes that mean a character.
//!
//! It is long because all tokens move the same place, which nothing outside can touch.

use crate::escape::{check_escapes, unescape};
use crate::lanes;
use crate::number::Number;

/// Says that a message is not plainly right, so that the reference has to settle it.
#[derive(Debug, PartialEq)]
pub struct Suspect;

/// What reading gives.
pub type Res<T> = Result<T, Suspect>;

/// A string between its quotes, as it is written.
#[derive(Clone, Copy)]
pub struct Text<'a> {
    pub raw: &'a [u8],
    pub escaped: bool,
}

/// A place in a message.
pub struct Cursor<'a> {
    message: &'a [u8],
    /// The message and what follows it in its buffer.
    room: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// Begin at a message of `length` bytes, with which `room` begins.
    pub fn new(room: &'a [u8], length: usize) -> Self {
        Cursor { message: &room[..length], room, at: 0 }
    }

    /// The next byte; 0 at the end, which is nowhere allowed outside strings.
    #[inline(always)]
    pub fn peek(&self) -> u8 {
        self.message.get(self.at).copied().unwrap_or(0)
    }

    #[inline(always)]
    pub fn step(&mut self) {
        self.at += 1;
    }

    #[inline(always)]
    pub fn place(&self) -> usize {
        self.at
    }

    #[inline(always)]
    pub fn at_end(&self) -> bool {
        self.at >= self.message.len()
    }

    /// Go back to a place.
    pub fn back_to(&mut self, place: usize) {
        self.at = place;
    }

    /// What was read since a place.
    pub fn since(&self, place: usize) -> &'a [u8] {
        &self.message[place..self.at]
    }

    #[inline(always)]
    pub fn space(&mut self) {
        while matches!(self.peek(), b' ' | b'\n' | b'\r' | b'\t') {
            self.at += 1;
        }
    }

    #[inline(always)]
    pub fn expect(&mut self, byte: u8) -> Res<()> {
        if self.peek() != byte {
            return Err(Suspect);
        }
        self.at += 1;
        Ok(())
    }

    /// Go on behind a comma and return true, or behind the end of a list or object and return false.
    #[inline(always)]
    pub fn more(&mut self, close: u8) -> Res<bool> {
        self.space();
        let byte = self.peek();
        if byte == b',' {
            self.at += 1;
            self.space();
            return Ok(true);
        }
        if byte != close {
            return Err(Suspect);
        }
        self.at += 1;
        Ok(false)
    }

    /// Go on behind the opening of a list or object; return whether anything is in it.
    #[inline(always)]
    pub fn open(&mut self, open: u8) -> Res<bool> {
        self.expect(open)?;
        self.space();
        if self.peek() == open + 2 {
            self.at += 1;
            return Ok(false);
        }
        Ok(true)
    }

    /// Go on behind the colon of a pair.
    #[inline(always)]
    pub fn colon(&mut self) -> Res<()> {
        self.space();
        self.expect(b':')?;
        self.space();
        Ok(())
    }

    #[inline(always)]
    pub fn word(&mut self, word: &[u8]) -> Res<()> {
        if self.message.get(self.at..self.at + word.len()) != Some(word) {
            return Err(Suspect);
        }
        self.at += word.len();
        Ok(())
    }

    /// Go on behind a key that stands here exactly so; return whether it does.
    #[inline(always)]
    pub fn key(&mut self, key: &Key) -> bool {
        let end = self.at + key.length;
        if end >= self.message.len() {
            return false;
        }
        let last = key.words.len() - 1;
        for (index, wanted) in key.words[..last].iter().enumerate() {
            if lanes::word(self.room, self.at + 8 * index) != Some(*wanted) {
                return false;
            }
        }
        match lanes::word(self.room, self.at + 8 * last) {
            Some(word) if word & key.mask == key.words[last] => self.at = end,
            _ => return false,
        }
        true
    }

    /// The string that begins here.
    #[inline(always)]
    pub fn text(&mut self) -> Res<Text<'a>> {
        self.expect(b'"')?;
        let first = self.at;
        let (mut escaped, mut foreign) = (false, false);
        loop {
            foreign |= self.run();
            match self.peek() {
                b'"' => break,
                b'\\' => {
                    escaped = true;
                    self.at += 2;
                }
                _ => return Err(Suspect),
            }
        }
        let raw = &self.message[first..self.at];
        self.at += 1;
        if foreign && std::str::from_utf8(raw).is_err() {
            return Err(Suspect);
        }
        Ok(Text { raw, escaped })
    }

    /// Go on to the next quote, backslash or control character, or to the end; return whether a byte was not ASCII.
    #[inline(always)]
    fn run(&mut self) -> bool {
        let mut foreign = false;
        while self.at < self.message.len() {
            let Some(block) = lanes::block(self.room, self.at) else { break };
            let (stop, high) = lanes::stop(block);
            foreign |= high;
            self.at += stop;
            if stop < lanes::BLOCK {
                return foreign;
            }
        }
        while !matches!(self.peek(), b'"' | b'\\' | 0..=0x1f) {
            foreign |= self.peek() >= 0x80;
            self.at += 1;
        }
        foreign
    }

    /// Append what the string that begins here says. What was appended before an error is the caller's to cut.
    #[inline(always)]
    pub fn text_into(&mut self, out: &mut Vec<u8>) -> Res<()> {
        if self.peek() != b'"' {
            return Err(Suspect);
        }
        let start = out.len();
        let first = self.at + 1;
        let (mut at, mut foreign) = (first, false);
        // Copied while it is looked at: most strings are plain and short.
        while at < self.message.len() {
            let Some(block) = lanes::block(self.room, at) else { break };
            let (stop, high) = lanes::stop(block);
            foreign |= high;
            out.extend_from_slice(block);
            at += stop;
            if stop == lanes::BLOCK {
                continue;
            }
            out.truncate(start + at - first);
            if self.message.get(at) != Some(&b'"') {
                break;
            }
            if foreign && std::str::from_utf8(&out[start..]).is_err() {
                return Err(Suspect);
            }
            self.at = at + 1;
            return Ok(());
        }
        out.truncate(start);
        self.text_into_slowly(out)
    }

    #[inline(never)]
    fn text_into_slowly(&mut self, out: &mut Vec<u8>) -> Res<()> {
        let text = self.text()?;
        if text.escaped {
            return unescape(text.raw, out);
        }
        out.extend_from_slice(text.raw);
        Ok(())
    }

    /// Go on behind a string that nobody wants, as strictly as over any other.
    pub fn skip_text(&mut self) -> Res<()> {
        let text = self.text()?;
        if text.escaped { check_escapes(text.raw) } else { Ok(()) }
    }

    #[inline(always)]
    fn digits(&mut self, mantissa: &mut u64) -> usize {
        let first = self.at;
        while self.at < self.message.len() {
            match lanes::word(self.room, self.at) {
                Some(word) if lanes::eight_digits(word) => {
                    *mantissa = mantissa.wrapping_mul(100_000_000).wrapping_add(lanes::of_eight(word));
                    self.at += 8;
                }
                _ => break,
            }
        }
        loop {
            let digit = self.peek().wrapping_sub(b'0');
            if digit > 9 {
                break;
            }
            *mantissa = mantissa.wrapping_mul(10).wrapping_add(digit as u64);
            self.at += 1;
        }
        self.at - first
    }

    /// The number that begins here. Something has to follow it: a message does not end with a number.
    #[inline(always)]
    pub fn number(&mut self) -> Res<Number<'a>> {
        let first = self.at;
        let negative = self.peek() == b'-';
        self.at += negative as usize;
        let mut mantissa = 0;
        let start = self.at;
        let zero = self.peek() == b'0';
        let mut digits = self.digits(&mut mantissa);
        if digits == 0 || zero && digits > 1 {
            return Err(Suspect);
        }
        let (mut exponent, mut integer) = (0, true);
        if self.peek() == b'.' {
            self.at += 1;
            let fraction = self.digits(&mut mantissa);
            if fraction == 0 {
                return Err(Suspect);
            }
            exponent = -(fraction as i32);
            digits += fraction;
            integer = false;
        }
        if self.at >= self.message.len() {
            return Err(Suspect);
        }
        let mut big = false;
        if digits > 19 {
            (mantissa, big) = many_digits(&self.message[start..self.at]);
        }
        if matches!(self.peek(), b'e' | b'E') {
            integer = false;
            let power = self.power()?;
            big |= power.is_none();
            exponent += power.unwrap_or(0);
        }
        Ok(Number { negative, mantissa, exponent, integer, big, text: self.since(first) })
    }

    /// The number between the quotes that begin here, written as JSON writes numbers.
    pub fn quoted_number(&mut self) -> Res<Number<'a>> {
        self.expect(b'"')?;
        let number = self.number()?;
        self.expect(b'"')?;
        Ok(number)
    }

    /// The exponent that begins here; None for one of more than five digits.
    #[inline(never)]
    fn power(&mut self) -> Res<Option<i32>> {
        self.at += 1;
        let minus = self.peek() == b'-';
        self.at += matches!(self.peek(), b'+' | b'-') as usize;
        let mut power = 0;
        let written = self.digits(&mut power);
        if written == 0 || self.at >= self.message.len() {
            return Err(Suspect);
        }
        let power = power as i32;
        Ok((written <= 5).then_some(if minus { -power } else { power }))
    }
}

/// The mantissa of digits and perhaps a point, and whether it is more than 64 bits hold.
#[cold]
fn many_digits(text: &[u8]) -> (u64, bool) {
    let mut sum = 0u128;
    for digit in text.iter().filter(|byte| **byte != b'.') {
        sum = sum * 10 + (digit - b'0') as u128;
        if sum > u64::MAX as u128 {
            return (0, true);
        }
    }
    (sum as u64, false)
}

/// A key with its quotes, in words that can be compared at once.
pub struct Key {
    length: usize,
    words: Vec<u64>,
    mask: u64,
}

impl Key {
    pub fn new(name: &str) -> Key {
        let mut text = format!("\"{name}\"").into_bytes();
        let length = text.len();
        let mask = if length % 8 == 0 { u64::MAX } else { u64::MAX >> (64 - 8 * (length % 8)) };
        text.resize(length.next_multiple_of(8), 0);
        let words = text.chunks_exact(8).map(|eight| u64::from_le_bytes(eight.try_into().unwrap_or_default()));
        // A name with a quote or a backslash is never written so, and its key stands nowhere.
        let plain = !name.bytes().any(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1f));
        Key { length: if plain { length } else { usize::MAX / 2 }, words: words.collect(), mask }
    }
}
