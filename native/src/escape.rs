//! Escapes in strings: read, and written as Python writes them.
//!
//! Laws: an escape that means no character is a `Suspect`, half a surrogate pair too. `quote` escapes what has to be and
//! nothing else, in the form that `json.encoder.encode_basestring` gives.

use crate::cursor::{Res, Suspect};

/// Append what a string between quotes says.
pub fn unescape(raw: &[u8], out: &mut Vec<u8>) -> Res<()> {
    let mut rest = raw;
    while let Some(next) = rest.iter().position(|byte| *byte == b'\\') {
        out.extend_from_slice(&rest[..next]);
        let (letter, length) = escape(&rest[next..])?;
        out.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
        rest = &rest[next + length..];
    }
    out.extend_from_slice(rest);
    Ok(())
}

/// Look at the escapes of a string between quotes as `unescape` does, and at nothing else.
pub fn check_escapes(raw: &[u8]) -> Res<()> {
    let mut rest = raw;
    while let Some(next) = rest.iter().position(|byte| *byte == b'\\') {
        rest = &rest[next + escape(&rest[next..])?.1..];
    }
    Ok(())
}

/// The character of an escape, and how many bytes write it. Half a surrogate pair is none.
fn escape(text: &[u8]) -> Res<(char, usize)> {
    let letter = match text.get(1) {
        Some(&byte @ (b'"' | b'\\' | b'/')) => byte,
        Some(b'n') => b'\n',
        Some(b't') => b'\t',
        Some(b'r') => b'\r',
        Some(b'b') => 8,
        Some(b'f') => 12,
        Some(b'u') => {
            let code = hexadecimal(text, 2)?;
            if !(0xd800..0xdc00).contains(&code) {
                return Ok((char::from_u32(code).ok_or(Suspect)?, 6));
            }
            if text.get(6..8) != Some(b"\\u") {
                return Err(Suspect);
            }
            let low = hexadecimal(text, 8)?;
            if !(0xdc00..0xe000).contains(&low) {
                return Err(Suspect);
            }
            return Ok((char::from_u32(0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00)).ok_or(Suspect)?, 12));
        }
        _ => return Err(Suspect),
    };
    Ok((letter as char, 2))
}

fn hexadecimal(text: &[u8], at: usize) -> Res<u32> {
    let digits = text.get(at..at + 4).ok_or(Suspect)?;
    digits.iter().try_fold(0, |code, digit| Ok(code * 16 + (*digit as char).to_digit(16).ok_or(Suspect)?))
}

/// Append a string as Python's `json` writes it without `ensure_ascii`, quotes included.
pub fn quote(plain: &[u8], out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    for &byte in plain {
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            8 => out.extend_from_slice(b"\\b"),
            12 => out.extend_from_slice(b"\\f"),
            0..=0x1f => {
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&[HEX[(byte >> 4) as usize], HEX[(byte & 15) as usize]]);
            }
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(raw: &str) -> Option<String> {
        let mut out = Vec::new();
        let done = unescape(raw.as_bytes(), &mut out);
        assert_eq!(done, check_escapes(raw.as_bytes()));
        done.ok().and_then(|()| String::from_utf8(out).ok())
    }

    #[test]
    fn escapes_mean_a_character_or_are_left() {
        assert_eq!(read(r#"a\u0041\n\/\"\\"#).as_deref(), Some("aA\n/\"\\"));
        assert_eq!(read(r"\ud83d\ude00").as_deref(), Some("\u{1f600}"));
        for raw in [r"\ud83d", r"\ude00", r"\ud83d\u0041", r"\x", r"\u12", r"\u00g0", "\\"] {
            assert_eq!(read(raw), None, "{raw}");
        }
    }

    #[test]
    fn what_is_quoted_reads_as_it_was() {
        let plain: String = (0..0x180).filter_map(char::from_u32).collect();
        let mut out = Vec::new();
        quote(plain.as_bytes(), &mut out);
        let quoted = String::from_utf8(out).unwrap();
        assert!(quoted.starts_with(r#""\u0000\u0001"#) && quoted.contains(r"\b\t\n\u000b\f\r\u000e"));
        assert_eq!(read(&quoted[1..quoted.len() - 1]), Some(plain));
    }
}
