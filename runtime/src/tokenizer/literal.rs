//! Python `str` and `bytes` literals, as `repr` writes them.

use super::error::LiteralError;

/// Appends the bytes of `literal` to `out`; those of a `str` are its UTF-8.
pub(super) fn parse(literal: &str, out: &mut Vec<u8>) -> Result<(), LiteralError> {
    let (is_bytes, quoted) = match literal.strip_prefix('b') {
        Some(rest) => (true, rest),
        None => (false, literal),
    };
    let (quote, inside) = unquote(quoted).ok_or(LiteralError::Quotes)?;
    let mut rest = inside;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        match c {
            '\\' => rest = escape(rest, is_bytes, out)?,
            _ if c == quote => return Err(LiteralError::StrayQuote),
            _ if c.is_ascii() => out.push(c as u8),
            _ if is_bytes => return Err(LiteralError::NotAscii(c)),
            _ => push_char(c, out),
        }
    }
    Ok(())
}

fn unquote(quoted: &str) -> Option<(char, &str)> {
    ['\'', '"']
        .into_iter()
        .find_map(|quote| Some((quote, quoted.strip_prefix(quote)?.strip_suffix(quote)?)))
}

/// Decodes the escape whose backslash stands just before `rest`; returns what follows it.
fn escape<'a>(rest: &'a str, is_bytes: bool, out: &mut Vec<u8>) -> Result<&'a str, LiteralError> {
    // A backslash before the closing quote escapes it, which leaves the literal without an end.
    let kind = rest.chars().next().ok_or(LiteralError::Quotes)?;
    let after = &rest[kind.len_utf8()..];
    let simple = match kind {
        '\\' | '\'' | '"' => kind as u8,
        'n' => b'\n',
        'r' => b'\r',
        't' => b'\t',
        'a' => 0x07,
        'b' => 0x08,
        'v' => 0x0b,
        'f' => 0x0c,
        '0'..='7' => {
            let length = rest
                .bytes()
                .take(3)
                .take_while(|b| (b'0'..=b'7').contains(b))
                .count();
            let value = rest[..length]
                .bytes()
                .fold(0, |value, digit| value * 8 + u32::from(digit - b'0'));
            push_code(value, is_bytes, out)?;
            return Ok(&rest[length..]);
        }
        'x' => return hex(kind, 2, after, is_bytes, out),
        'u' if !is_bytes => return hex(kind, 4, after, is_bytes, out),
        'U' if !is_bytes => return hex(kind, 8, after, is_bytes, out),
        _ => return Err(LiteralError::UnknownEscape(kind)),
    };
    out.push(simple);
    Ok(after)
}

fn hex<'a>(
    kind: char,
    digits: usize,
    rest: &'a str,
    is_bytes: bool,
    out: &mut Vec<u8>,
) -> Result<&'a str, LiteralError> {
    // `from_str_radix` alone would let a sign pass.
    let value = rest
        .get(..digits)
        .filter(|text| text.bytes().all(|b| b.is_ascii_hexdigit()))
        .and_then(|text| u32::from_str_radix(text, 16).ok())
        .ok_or(LiteralError::Digits { kind, digits })?;
    push_code(value, is_bytes, out)?;
    Ok(&rest[digits..])
}

/// A number from an escape: a byte in a `bytes` literal, a character in a `str`.
fn push_code(value: u32, is_bytes: bool, out: &mut Vec<u8>) -> Result<(), LiteralError> {
    if is_bytes {
        out.push(u8::try_from(value).map_err(|_| LiteralError::NotAByte(value))?);
    } else {
        push_char(
            char::from_u32(value).ok_or(LiteralError::NotACharacter(value))?,
            out,
        );
    }
    Ok(())
}

fn push_char(c: char, out: &mut Vec<u8>) {
    out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes_of(literal: &str) -> Result<Vec<u8>, LiteralError> {
        let mut out = Vec::new();
        parse(literal, &mut out)?;
        Ok(out)
    }

    #[test]
    fn reads_what_python_writes() {
        let cases: [(&str, &[u8]); 14] = [
            ("'a'", b"a"),
            ("\"it's\"", b"it's"),
            (r#"'"'"#, b"\""),
            (r"'\''", b"'"),
            (r"'\\'", b"\\"),
            (r"'\n\r\t\a\b\v\f'", b"\n\r\t\x07\x08\x0b\x0c"),
            (r"'\x85'", "\u{85}".as_bytes()),
            (r"b'\x85'", b"\x85"),
            (r"b'\0\101\377'", b"\0A\xff"),
            (r"'\400'", "\u{100}".as_bytes()),
            (r"'\u200b'", "\u{200b}".as_bytes()),
            (r"'\U0001f600'", "😀".as_bytes()),
            ("'  '", b"  "),
            ("'日本'", "日本".as_bytes()),
        ];
        for (literal, expected) in cases {
            assert_eq!(bytes_of(literal).as_deref(), Ok(expected), "{literal}");
        }
    }

    #[test]
    fn says_what_is_wrong() {
        use LiteralError::*;
        let cases = [
            ("", Quotes),
            ("'", Quotes),
            ("a", Quotes),
            ("'a\"", Quotes),
            ("u'a'", Quotes),
            (r"'\'", Quotes),
            ("'a'b'", StrayQuote),
            (r"'\q'", UnknownEscape('q')),
            (r"'\日'", UnknownEscape('日')),
            (r"b'\u0041'", UnknownEscape('u')),
            (r"'\x4'", Digits { kind: 'x', digits: 2 }),
            (r"'\x+4'", Digits { kind: 'x', digits: 2 }),
            (r"'\u00é'", Digits { kind: 'u', digits: 4 }),
            (r"'\ud800'", NotACharacter(0xd800)),
            (r"'\U00110000'", NotACharacter(0x0011_0000)),
            (r"b'\400'", NotAByte(0x100)),
            ("b'é'", NotAscii('é')),
        ];
        for (literal, expected) in cases {
            assert_eq!(bytes_of(literal), Err(expected), "{literal}");
        }
    }
}
