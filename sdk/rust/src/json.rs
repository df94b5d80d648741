//! JSON, as much of it as a function needs without a crate for it: [`Json`] reads, [`Value`] writes.
//! For types of your own, give [`Event::text`](crate::Event::text) to a crate such as serde_json, and
//! what it writes to [`Value::raw`].

use std::borrow::Cow;
use std::fmt;

/// How deep arrays and objects may be nested: as deep as an event's data.
const DEPTH: u32 = 64;

/// A JSON value where it is in a text. It is small, and copied like a reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Json<'a>(&'a str);

impl<'a> Json<'a> {
    /// Returns the value that the text is, or `None` when it is not one JSON value.
    pub fn parse(text: &'a str) -> Option<Json<'a>> {
        let start = skip_space(text.as_bytes(), 0);
        let end = skip(text.as_bytes(), start)?;
        if skip_space(text.as_bytes(), end) < text.len() {
            return None;
        }
        Some(Json(&text[start..end]))
    }

    /// The JSON text of the value.
    pub fn text(self) -> &'a str {
        self.0
    }

    /// The member of an object with this name.
    pub fn get(self, name: &str) -> Option<Json<'a>> {
        self.members().find(|(n, _)| n == name).map(|(_, v)| v)
    }

    /// The members of an object; none of anything else.
    pub fn members(self) -> impl Iterator<Item = (Cow<'a, str>, Json<'a>)> {
        Items::new(self.0, b'{').map(|(name, v)| (Json(name).string().unwrap_or_default(), v))
    }

    /// The elements of an array; none of anything else.
    pub fn elements(self) -> impl Iterator<Item = Json<'a>> {
        Items::new(self.0, b'[').map(|(_, v)| v)
    }

    /// The text of a string.
    pub fn string(self) -> Option<Cow<'a, str>> {
        let inside = self.0.strip_prefix('"')?.strip_suffix('"')?;
        if inside.contains('\\') {
            return Some(Cow::Owned(unescape(inside)));
        }
        Some(Cow::Borrowed(inside))
    }

    /// A number that is an integer of 64 bits, written as one.
    pub fn integer(self) -> Option<i64> {
        self.0.parse().ok()
    }

    /// A number.
    pub fn number(self) -> Option<f64> {
        match self.0.as_bytes()[0] {
            b'-' | b'0'..=b'9' => self.0.parse().ok(),
            _ => None,
        }
    }

    /// `true` or `false`.
    pub fn boolean(self) -> Option<bool> {
        self.0.parse().ok()
    }

    /// Whether it is `null`.
    pub fn is_null(self) -> bool {
        self.0 == "null"
    }
}

/// Iterates over what is in an array or an object, whose text is known to be JSON.
struct Items<'a> {
    text: &'a str,
    at: usize, // after the bracket or the value before
    object: bool,
}

impl<'a> Items<'a> {
    fn new(text: &'a str, bracket: u8) -> Items<'a> {
        let at = if text.as_bytes()[0] == bracket {
            1
        } else {
            text.len()
        };
        Items {
            text,
            at,
            object: bracket == b'{',
        }
    }
}

impl<'a> Iterator for Items<'a> {
    type Item = (&'a str, Json<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let bytes = self.text.as_bytes();
        let mut at = skip_space(bytes, self.at);
        if bytes.get(at) == Some(&b',') {
            at = skip_space(bytes, at + 1);
        }
        let mut name = "";
        if self.object {
            let end = skip_string(bytes, at)?;
            name = &self.text[at..end];
            at = skip_space(bytes, skip_space(bytes, end) + 1);
        }
        self.at = skip(bytes, at)?;
        Some((name, Json(&self.text[at..self.at])))
    }
}

fn skip_space(text: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\t' | b'\n' | b'\r') = text.get(at) {
        at += 1;
    }
    at
}

/// Returns the end of the value that begins at `at`, or `None` when there is none or it is not JSON.
fn skip(text: &[u8], at: usize) -> Option<usize> {
    let mut at = at;
    let mut objects = 0u64; // a bit for each level: whether it is an object
    let mut depth = 0;
    'value: loop {
        at = skip_space(text, at);
        let first = *text.get(at)?;
        at = match first {
            b'{' | b'[' => {
                let inside = skip_space(text, at + 1);
                if text.get(inside) == Some(&(first + 2)) {
                    inside + 1 // the closing bracket is two after the opening one
                } else {
                    if depth == DEPTH {
                        return None;
                    }
                    depth += 1;
                    objects = objects << 1 | u64::from(first == b'{');
                    at = if first == b'{' {
                        skip_name(text, inside)?
                    } else {
                        inside
                    };
                    continue 'value;
                }
            }
            b'"' => skip_string(text, at)?,
            b't' => skip_word(text, at, b"true")?,
            b'f' => skip_word(text, at, b"false")?,
            b'n' => skip_word(text, at, b"null")?,
            _ => skip_number(text, at)?,
        };
        // A value has ended; so may what it is in.
        while depth > 0 {
            at = skip_space(text, at);
            let object = objects & 1 == 1;
            match *text.get(at)? {
                b',' => {
                    at = if object {
                        skip_name(text, skip_space(text, at + 1))?
                    } else {
                        at + 1
                    };
                    continue 'value;
                }
                b'}' if object => {}
                b']' if !object => {}
                _ => return None,
            }
            at += 1;
            objects >>= 1;
            depth -= 1;
        }
        return Some(at);
    }
}

/// Returns where the value after a name and its colon begins.
fn skip_name(text: &[u8], at: usize) -> Option<usize> {
    let at = skip_space(text, skip_string(text, at)?);
    if text.get(at) == Some(&b':') {
        Some(at + 1)
    } else {
        None
    }
}

fn skip_word(text: &[u8], at: usize, word: &[u8]) -> Option<usize> {
    if text[at..].starts_with(word) {
        Some(at + word.len())
    } else {
        None
    }
}

fn skip_string(text: &[u8], at: usize) -> Option<usize> {
    if text.get(at) != Some(&b'"') {
        return None;
    }
    let mut at = at + 1;
    loop {
        match *text.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => match *text.get(at + 1)? {
                b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => at += 2,
                b'u' if text.get(at + 2..at + 6)?.iter().all(u8::is_ascii_hexdigit) => at += 6,
                _ => return None,
            },
            0..=0x1f => return None,
            _ => at += 1,
        }
    }
}

fn skip_number(text: &[u8], at: usize) -> Option<usize> {
    let mut at = at;
    if text.get(at) == Some(&b'-') {
        at += 1;
    }
    at = if text.get(at) == Some(&b'0') {
        at + 1
    } else {
        skip_digits(text, at)?
    };
    if text.get(at) == Some(&b'.') {
        at = skip_digits(text, at + 1)?;
    }
    if let Some(b'e' | b'E') = text.get(at) {
        at += 1;
        if let Some(b'+' | b'-') = text.get(at) {
            at += 1;
        }
        at = skip_digits(text, at)?;
    }
    Some(at)
}

fn skip_digits(text: &[u8], at: usize) -> Option<usize> {
    let digits = text
        .get(at..)?
        .iter()
        .take_while(|c| c.is_ascii_digit())
        .count();
    if digits > 0 {
        Some(at + digits)
    } else {
        None
    }
}

/// Decodes what is between the quotes of a valid string.
fn unescape(inside: &str) -> String {
    let mut out = String::with_capacity(inside.len());
    let mut rest = inside;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let escape = rest.as_bytes()[at + 1];
        rest = &rest[at + 2..];
        match escape {
            b'b' => out.push('\u{8}'),
            b'f' => out.push('\u{c}'),
            b'n' => out.push('\n'),
            b'r' => out.push('\r'),
            b't' => out.push('\t'),
            b'u' => {
                let mut units = vec![hex(rest)];
                rest = &rest[4..];
                if (0xd800..0xdc00).contains(&units[0])
                    && rest.starts_with("\\u")
                    && (0xdc00..0xe000).contains(&hex(&rest[2..]))
                {
                    units.push(hex(&rest[2..]));
                    rest = &rest[6..];
                }
                out.extend(
                    char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)),
                );
            }
            other => out.push(char::from(other)),
        }
    }
    out.push_str(rest);
    out
}

fn hex(text: &str) -> u16 {
    u16::from_str_radix(&text[..4], 16).unwrap_or(0xfffd) // it is checked to be hexadecimal
}

/// A JSON value to write. Everything in it is encoded, so that data can never become syntax.
#[derive(Clone, Debug, PartialEq)]
pub struct Value(Kind);

#[derive(Clone, Debug, PartialEq)]
enum Kind {
    Text(String), // a scalar, or raw JSON: known to be one JSON value
    String(String),
    Array(Vec<Value>),
    Object(Vec<(String, Value)>),
}

impl Value {
    /// `null`.
    pub fn null() -> Value {
        Value(Kind::Text("null".into()))
    }

    /// A value that is JSON already, or `None` when the text is not one JSON value.
    pub fn raw(text: &str) -> Option<Value> {
        Json::parse(text).map(Value::from)
    }

    /// An object with these members.
    pub fn object<N: Into<String>>(members: impl IntoIterator<Item = (N, Value)>) -> Value {
        Value(Kind::Object(
            members.into_iter().map(|(n, v)| (n.into(), v)).collect(),
        ))
    }

    fn write(&self, out: &mut String) {
        match &self.0 {
            Kind::Text(text) => out.push_str(text),
            Kind::String(s) => write_string(out, s),
            Kind::Array(all) => {
                out.push('[');
                for (i, v) in all.iter().enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    v.write(out);
                }
                out.push(']');
            }
            Kind::Object(all) => {
                out.push('{');
                for (i, (name, v)) in all.iter().enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    write_string(out, name);
                    out.push(':');
                    v.write(out);
                }
                out.push('}');
            }
        }
    }
}

/// Writes the JSON text.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = String::new();
        self.write(&mut out);
        f.write_str(&out)
    }
}

pub(crate) fn write_string(out: &mut String, s: &str) {
    out.push('"');
    for c in s.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\0'..='\x1f' => out.push_str(&format!("\\u{:04x}", c as u32)),
            _ => out.push(c),
        }
    }
    out.push('"');
}

impl From<Json<'_>> for Value {
    fn from(v: Json<'_>) -> Value {
        Value(Kind::Text(v.0.into()))
    }
}

impl From<&str> for Value {
    fn from(s: &str) -> Value {
        Value(Kind::String(s.into()))
    }
}

impl From<String> for Value {
    fn from(s: String) -> Value {
        Value(Kind::String(s))
    }
}

impl From<Cow<'_, str>> for Value {
    fn from(s: Cow<'_, str>) -> Value {
        Value(Kind::String(s.into_owned()))
    }
}

impl From<bool> for Value {
    fn from(b: bool) -> Value {
        Value(Kind::Text(b.to_string()))
    }
}

impl From<i64> for Value {
    fn from(n: i64) -> Value {
        Value(Kind::Text(n.to_string()))
    }
}

/// Infinities and what is no number have no JSON, and become `null`.
impl From<f64> for Value {
    fn from(n: f64) -> Value {
        if n.is_finite() {
            Value(Kind::Text(n.to_string()))
        } else {
            Value::null()
        }
    }
}

impl<T: Into<Value>> From<Vec<T>> for Value {
    fn from(all: Vec<T>) -> Value {
        Value(Kind::Array(all.into_iter().map(Into::into).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_texts_are_read() {
        for text in [
            "0",
            "-1.5e+3",
            "true",
            "null",
            "\"\"",
            "[]",
            "{}",
            " [ 1 , {\"a\" : [ ] , \"b\":{}} ] ",
            "\"\\u00e4\\n\"",
            "[[[]],{}]",
        ] {
            assert!(Json::parse(text).is_some(), "{text} is refused");
        }
        let deep = "[".repeat(64) + "1" + &"]".repeat(64);
        assert!(Json::parse(&deep).is_some());
    }

    #[test]
    fn other_texts_are_not() {
        for text in [
            "",
            " ",
            "01",
            "1.",
            ".5",
            "+1",
            "1e",
            "--1",
            "tru",
            "nul",
            "\"",
            "\"\\x\"",
            "\"\\u12g4\"",
            "\"\\u12",
            "\"\n\"",
            "[",
            "[1,]",
            "[1 2]",
            "[1}",
            "{",
            "{1:2}",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{\"a\":1]",
            "1 2",
            "[]]",
            "{}{}",
            "1,\"x\":2",
            "NaN",
        ] {
            assert_eq!(Json::parse(text), None, "{text} is accepted");
        }
        let deep = "[".repeat(65) + "1" + &"]".repeat(65);
        assert_eq!(Json::parse(&deep), None);
    }

    #[test]
    fn values_are_found() {
        let v = Json::parse(r#" { "a" : [1, -2.5, "x\"\u00fc\ud83d\ude00\ud800"], "\u0062":{"c":true}, "d":null } "#).unwrap();
        let a: Vec<_> = v.get("a").unwrap().elements().collect();
        assert_eq!(a[0].integer(), Some(1));
        assert_eq!((a[1].integer(), a[1].number()), (None, Some(-2.5)));
        assert_eq!(a[2].string().unwrap(), "x\"ü😀\u{fffd}");
        assert_eq!(v.get("b").unwrap().get("c").unwrap().boolean(), Some(true));
        assert!(v.get("d").unwrap().is_null());
        assert_eq!(v.get("e"), None);
        assert_eq!(
            v.members().map(|(n, _)| n.into_owned()).collect::<Vec<_>>(),
            ["a", "b", "d"]
        );
        assert_eq!(
            (v.elements().count(), a[0].members().count(), a[2].number()),
            (0, 0, None)
        );
        assert_eq!(
            Json::parse("[]").unwrap().elements().count()
                + Json::parse(" {} ").unwrap().members().count(),
            0
        );
    }

    #[test]
    fn data_stays_data() {
        let v = Value::object([
            ("a\"", Value::from("\",\"x\":\\\n\u{1}ü")),
            ("b", vec![1i64, -2].into()),
            (
                "c",
                vec![Value::null(), true.into(), 1.5.into(), f64::NAN.into()].into(),
            ),
            ("d", Value::raw(" [1, 2] ").unwrap()),
        ]);
        let text = v.to_string();
        assert_eq!(text, "{\"a\\\"\":\"\\\",\\\"x\\\":\\\\\\u000a\\u0001ü\",\"b\":[1,-2],\"c\":[null,true,1.5,null],\"d\":[1, 2]}");
        assert!(Json::parse(&text).is_some());
        assert_eq!(Value::raw("1],\"x\":[2"), None);
    }
}
