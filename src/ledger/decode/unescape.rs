//! What a JSON string says, byte by byte (RFC 8259 §7).

/// Reads the inside of a string.
#[derive(Default)]
pub(super) struct Unescape {
    escape: Escape,
    /// The first half of a character that is written as two.
    high: Option<u32>,
}

#[derive(Default)]
enum Escape {
    #[default]
    No,
    Begun,
    /// So many digits of a character's number, and what they come to.
    Digits(u8, u32),
}

impl Unescape {
    /// Takes the next byte; what it says goes to `out`. True at the string's end.
    pub(super) fn next(&mut self, byte: u8, mut out: impl FnMut(u8)) -> bool {
        match std::mem::take(&mut self.escape) {
            Escape::No => match byte {
                b'"' => {
                    self.half(&mut out);
                    return true;
                }
                b'\\' => self.escape = Escape::Begun,
                _ => {
                    self.half(&mut out);
                    out(byte);
                }
            },
            Escape::Begun if byte == b'u' => self.escape = Escape::Digits(0, 0),
            Escape::Begun => {
                self.half(&mut out);
                out(match byte {
                    b'n' => b'\n',
                    b't' => b'\t',
                    b'r' => b'\r',
                    b'b' => 0x08,
                    b'f' => 0x0C,
                    other => other,
                });
            }
            Escape::Digits(count, number) => {
                let digit = char::from(byte).to_digit(16).unwrap_or_default();
                let number = number << 4 | digit;
                if count < 3 {
                    self.escape = Escape::Digits(count + 1, number);
                } else {
                    self.character(number, &mut out);
                }
            }
        }
        false
    }

    fn character(&mut self, number: u32, out: &mut impl FnMut(u8)) {
        match (self.high, number) {
            (Some(high), 0xDC00..=0xDFFF) => {
                self.high = None;
                say(0x1_0000 + ((high - 0xD800) << 10) + (number - 0xDC00), out);
            }
            (_, 0xD800..=0xDBFF) => {
                self.half(out);
                self.high = Some(number);
            }
            _ => {
                self.half(out);
                say(number, out);
            }
        }
    }

    /// Half a character alone is none.
    fn half(&mut self, out: &mut impl FnMut(u8)) {
        if self.high.take().is_some() {
            say(0xFFFD, out);
        }
    }
}

fn say(number: u32, out: &mut impl FnMut(u8)) {
    let character = char::from_u32(number).unwrap_or(char::REPLACEMENT_CHARACTER);
    character.encode_utf8(&mut [0; 4]).bytes().for_each(out);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_what_serde_says() {
        for text in
            [r#""""#, r#""a\"b\\c\/d\n\t\r\b\f""#, r#""é\u00e9\uD83D\uDE00x""#, r#""[\"{\\\"a\\\":1}\"]""#]
        {
            let mut said = Vec::new();
            let mut unescape = Unescape::default();
            let ended: Vec<_> =
                text.bytes().skip(1).map(|byte| unescape.next(byte, |b| said.push(b))).collect();
            assert_eq!(String::from_utf8(said).unwrap(), serde_json::from_str::<String>(text).unwrap());
            assert_eq!(ended.iter().position(|ended| *ended), Some(text.len() - 2));
        }
    }

    #[test]
    fn half_a_character_is_replaced() {
        for text in [r#"\uD83Dx""#, r#"\uD83D""#, r#"\uDE00""#, r#"\uD83D\n""#, r#"\uD83D\uD83D\uDE00""#] {
            let mut said = Vec::new();
            let mut unescape = Unescape::default();
            text.bytes().for_each(|byte| _ = unescape.next(byte, |b| said.push(b)));
            assert!(String::from_utf8(said).unwrap().starts_with('\u{FFFD}'), "{text}");
        }
    }
}
