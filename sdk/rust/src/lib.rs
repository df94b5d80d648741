//! Write a Sallyport function in Rust.
//!
//! ```
//! use sallyport::{Context, Event, Failure, NewEvent, Value};
//!
//! fn greet(event: &Event, ctx: &mut Context) -> Result<Option<Value>, Failure> {
//!     let data = event.json().ok_or_else(|| Failure::last("the data is not JSON"))?;
//!     let name = data.get("name").and_then(|n| n.string()).ok_or_else(|| Failure::last("there is no name"))?;
//!     ctx.info(&format!("hello, {name}"));
//!     ctx.publish(NewEvent::new("greeting.sent").data(Value::object([("to", Value::from(name))])));
//!     Ok(Some("hello".into()))
//! }
//!
//! sallyport::handle!(greet);
//! ```
//!
//! Make the crate a `cdylib`, and build it for `wasm32-wasip1` or, when it needs neither clock nor
//! random numbers, for `wasm32-unknown-unknown`:
//!
//! ```sh
//! cargo build --release --target wasm32-unknown-unknown
//! ```
//!
//! Each event starts from the memory as it was after initialisation: a `static` holds nothing of
//! earlier events. The program has no files, environment, network or threads. A panic fails the
//! attempt, and its message is in the function log. The crate has no dependencies, and works with any
//! that compile to WebAssembly, such as serde. [`test()`] runs a handler in an ordinary test. The
//! contract beneath it is design/abi.md.

#![warn(missing_docs)]

use std::borrow::Cow;
use std::error::Error;
use std::time::Duration;

mod grant;
#[doc(hidden)]
pub mod host;
mod json;

pub use grant::{Answer, GrantError, HttpRequest, HttpResponse, Use};
pub use json::{Json, Value};

use host::{GrantAnswer, Host};
use json::write_string;

/// The event to handle, with the attributes of CloudEvents 1.0.
#[derive(Clone, Debug)]
pub struct Event<'a> {
    members: Json<'a>,
    data_base64: Option<Vec<u8>>,
    /// The id.
    pub id: Cow<'a, str>,
    /// The source.
    pub source: Cow<'a, str>,
    /// The type: `type` is a word of Rust's own.
    pub kind: Cow<'a, str>,
    /// The subject, if there is one.
    pub subject: Option<Cow<'a, str>>,
}

impl<'a> Event<'a> {
    fn parse(text: &'a str) -> Option<Event<'a>> {
        let members = Json::parse(text)?;
        let mut event = Event {
            members,
            data_base64: None,
            id: "".into(),
            source: "".into(),
            kind: "".into(),
            subject: None,
        };
        for (name, value) in members.members() {
            match name.as_ref() {
                "id" => event.id = value.string()?,
                "source" => event.source = value.string()?,
                "type" => event.kind = value.string()?,
                "subject" => event.subject = value.string(),
                "data_base64" => event.data_base64 = Some(decode_base64(&value.string()?)?),
                _ => {}
            }
        }
        Some(event)
    }

    /// Any other attribute, such as `time`, `datacontenttype` or an extension.
    pub fn attribute(&self, name: &str) -> Option<Json<'a>> {
        self.members.get(name)
    }

    /// The data, if it is JSON.
    pub fn json(&self) -> Option<Json<'a>> {
        self.members.get("data")
    }

    /// The JSON text of the data, if it is JSON, for a crate that decodes it into types.
    pub fn text(&self) -> Option<&'a str> {
        self.json().map(Json::text)
    }

    /// The data, if it is binary.
    pub fn bytes(&self) -> Option<&[u8]> {
        self.data_base64.as_deref()
    }
}

/// How a failed attempt is to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Retry {
    Yes,
    Later(Duration),
    No,
}

/// A failed attempt: what was published does not count, and the delivery is tried again unless this
/// rules it out. Any error becomes one with `?`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    message: String,
    retry: Retry,
}

impl Failure {
    /// A failure that may be gone at the next attempt.
    pub fn new(message: impl Into<String>) -> Failure {
        Failure {
            message: message.into(),
            retry: Retry::Yes,
        }
    }

    /// A failure after which no further attempt is made.
    pub fn last(message: impl Into<String>) -> Failure {
        Failure {
            message: message.into(),
            retry: Retry::No,
        }
    }

    /// A failure after which the next attempt is not made before that long.
    pub fn later(message: impl Into<String>, wait: Duration) -> Failure {
        Failure {
            message: message.into(),
            retry: Retry::Later(wait),
        }
    }

    fn write(&self, out: &mut String) {
        out.push_str("{\"error\":{\"message\":");
        write_string(out, &self.message);
        match self.retry {
            Retry::Yes => {}
            Retry::No => out.push_str(",\"retry\":false"),
            Retry::Later(wait) => {
                out.push_str(&format!(",\"retry_after_seconds\":{}", wait.as_secs_f64()))
            }
        }
        out.push_str("}}");
    }
}

impl<E: Error> From<E> for Failure {
    fn from(e: E) -> Failure {
        Failure::new(e.to_string())
    }
}

/// An event to publish; a publish grant of the function must name its type.
#[derive(Clone, Debug, PartialEq)]
pub struct NewEvent {
    kind: String,
    subject: Option<String>,
    id: Option<String>,
    data: Option<Value>,
}

impl NewEvent {
    /// An event of this type.
    pub fn new(kind: impl Into<String>) -> NewEvent {
        NewEvent {
            kind: kind.into(),
            subject: None,
            id: None,
            data: None,
        }
    }

    /// Sets the subject.
    pub fn subject(mut self, subject: impl Into<String>) -> NewEvent {
        self.subject = Some(subject.into());
        self
    }

    /// Sets the id. Without one, the server makes one that a retried attempt makes again.
    pub fn id(mut self, id: impl Into<String>) -> NewEvent {
        self.id = Some(id.into());
        self
    }

    /// Sets the data.
    pub fn data(mut self, data: impl Into<Value>) -> NewEvent {
        self.data = Some(data.into());
        self
    }

    fn value(self) -> Value {
        let mut members = vec![("type", Value::from(self.kind))];
        members.extend(self.subject.map(|s| ("subject", s.into())));
        members.extend(self.id.map(|s| ("id", s.into())));
        members.extend(self.data.map(|v| ("data", v)));
        Value::object(members)
    }
}

/// The invocation a handler runs in.
pub struct Context<'h> {
    host: &'h mut dyn Host,
    events: Vec<Value>,
}

impl Context<'_> {
    /// Which try at this delivery it is, from 1.
    pub fn attempt(&self) -> u32 {
        self.host.attempt()
    }

    /// When the invocation is stopped, in milliseconds since 1970.
    pub fn deadline_millis(&self) -> i64 {
        self.host.deadline_millis()
    }

    /// Publishes an event when the handler returns `Ok`.
    pub fn publish(&mut self, event: NewEvent) {
        self.events.push(event.value());
    }

    /// Writes a line to the function log.
    pub fn debug(&mut self, line: &str) {
        self.host.log(0, line)
    }

    /// Writes a line to the function log.
    pub fn info(&mut self, line: &str) {
        self.host.log(1, line)
    }

    /// Writes a line to the function log.
    pub fn warn(&mut self, line: &str) {
        self.host.log(2, line)
    }

    /// Writes a line to the function log. It does not fail the attempt: return a [`Failure`] for that.
    pub fn error(&mut self, line: &str) {
        self.host.log(3, line)
    }
}

/// Handles one event. The value it returns, if there is one, is the reply that a synchronous caller
/// gets.
pub type Handler = fn(&Event, &mut Context) -> Result<Option<Value>, Failure>;

/// Runs a handler and returns the result as design/abi.md has it, and whether it is a failure.
fn run(handler: Handler, event: &[u8], host: &mut dyn Host) -> (String, bool) {
    let outcome = match std::str::from_utf8(event).ok().and_then(Event::parse) {
        None => Err(Failure::last("the event cannot be parsed")),
        Some(event) => {
            let mut ctx = Context {
                host,
                events: vec![],
            };
            handler(&event, &mut ctx).map(|reply| (reply, ctx.events))
        }
    };
    let mut out = String::new();
    match outcome {
        Err(failure) => {
            failure.write(&mut out);
            (out, true)
        }
        Ok((reply, events)) => {
            let mut members = vec![];
            members.extend(reply.map(|v| ("reply", v)));
            if !events.is_empty() {
                members.push(("events", events.into()));
            }
            (Value::object(members).to_string(), false)
        }
    }
}

/// Makes a [`Handler`] the function. Use it once in a program.
#[macro_export]
macro_rules! handle {
    ($handler:expr) => {
        #[cfg(target_family = "wasm")]
        #[no_mangle]
        extern "C" fn sallyport_handle() -> i32 {
            $crate::enter($handler)
        }

        #[cfg(target_family = "wasm")]
        #[export_name = "_initialize"]
        extern "C" fn sallyport_initialize() {
            $crate::initialize()
        }
    };
}

/// How much memory there is for an event before the memory has to grow. An instance whose memory has
/// grown does not serve another event, so most should not need more.
#[cfg(target_family = "wasm")]
const HEAP_BYTES: usize = 512 << 10;

/// What [`handle!`] has run once, for all events: it has the allocator take memory.
#[cfg(target_family = "wasm")]
#[doc(hidden)]
pub fn initialize() {
    let mut heap = Vec::<u8>::with_capacity(HEAP_BYTES);
    // SAFETY: it has that capacity. What is written does not matter; that it is keeps the allocation.
    unsafe { heap.as_mut_ptr().write_volatile(0) }
}

/// What [`handle!`] has run for each event.
#[cfg(target_family = "wasm")]
#[doc(hidden)]
pub fn enter(handler: Handler) -> i32 {
    std::panic::set_hook(Box::new(|panic| host::log(3, &panic.to_string())));
    let (result, failed) = run(handler, &host::event(), &mut host::Server);
    host::result(&result);
    i32::from(failed)
}

/// What became of an event in [`test()`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The result, as design/abi.md has it: `{"reply":…,"events":…}` or `{"error":…}`.
    pub result: String,
    /// The lines in order, each with its level before it, such as `info hello, ada`.
    pub log: Vec<String>,
}

/// What a handler wants of a grant in [`test_with()`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantUse<'a> {
    /// The name of the grant.
    pub grant: &'a str,
    /// What is to be done.
    pub op: &'a str,
    /// The request, which is JSON.
    pub request: &'a str,
    /// What comes with it as bytes.
    pub body: &'a [u8],
}

/// Runs a handler with an event, given in the JSON format of CloudEvents, as the first attempt.
pub fn test(handler: Handler, event: &str) -> Outcome {
    test_with(handler, event, |u| {
        Err(GrantError {
            code: "grant.not_granted".into(),
            message: format!("the function has no grant {}", u.grant),
            retry: false,
            retry_after: None,
        })
    })
}

/// [`test()`] for a handler that uses grants: `answer` stands in for them.
pub fn test_with(
    handler: Handler,
    event: &str,
    answer: impl FnMut(&GrantUse) -> Result<Answer, GrantError>,
) -> Outcome {
    struct Fake<F> {
        log: Vec<String>,
        answers: Vec<Result<Answer, GrantError>>,
        answer: F,
    }
    impl<F: FnMut(&GrantUse) -> Result<Answer, GrantError>> Host for Fake<F> {
        fn log(&mut self, level: i32, line: &str) {
            self.log.push(format!(
                "{} {line}",
                ["debug", "info", "warn", "error"][level as usize]
            ));
        }
        fn attempt(&self) -> u32 {
            1
        }
        fn deadline_millis(&self) -> i64 {
            i64::MAX
        }
        fn grant_start(&mut self, grant: &str, op: &str, request: &str, body: &[u8]) -> i32 {
            let used = GrantUse {
                grant,
                op,
                request,
                body,
            };
            self.answers.push((self.answer)(&used));
            self.answers.len() as i32
        }
        fn grant_wait(&mut self, number: i32) -> GrantAnswer {
            match self.answers[number as usize - 1].clone() {
                Ok(Answer { value, body }) => GrantAnswer {
                    served: true,
                    json: value.into_bytes(),
                    body,
                },
                Err(e) => GrantAnswer {
                    served: false,
                    json: e.value().to_string().into_bytes(),
                    body: vec![],
                },
            }
        }
    }
    let mut host = Fake {
        log: vec![],
        answers: vec![],
        answer,
    };
    let (result, _) = run(handler, event.as_bytes(), &mut host);
    Outcome {
        result,
        log: host.log,
    }
}

fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=');
    if text.len() % 4 != 0 || text.len() - digits.len() > 2 {
        return None;
    }
    let mut out = Vec::with_capacity(digits.len() * 3 / 4);
    let (mut bits, mut have) = (0u32, 0);
    for c in digits.bytes() {
        let digit = match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(digit);
        have += 6;
        if have >= 8 {
            have -= 8;
            out.push((bits >> have) as u8);
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENT: &str = r#"{"specversion":"1.0","id":"e-1","source":"/shop","type":"order.created","subject":"o\"1","hops":2,"data":{"total":7}}"#;

    #[test]
    fn an_event_is_handled() {
        let out = test(
            |event, ctx| {
                assert_eq!(
                    (&*event.id, &*event.source, &*event.kind),
                    ("e-1", "/shop", "order.created")
                );
                assert_eq!(event.subject.as_deref(), Some("o\"1"));
                assert_eq!(
                    (event.text(), event.bytes()),
                    (Some(r#"{"total":7}"#), None)
                );
                assert_eq!(event.attribute("hops").unwrap().integer(), Some(2));
                assert_eq!(ctx.attempt(), 1);
                ctx.warn("careful");
                ctx.publish(
                    NewEvent::new("a.b")
                        .subject(&*event.subject.clone().unwrap())
                        .id("1")
                        .data(event.json().unwrap()),
                );
                ctx.publish(NewEvent::new("c.d"));
                Ok(Some(ctx.deadline_millis().into()))
            },
            EVENT,
        );
        assert_eq!(out.log, ["warn careful"]);
        assert_eq!(
            out.result,
            r#"{"reply":9223372036854775807,"events":[{"type":"a.b","subject":"o\"1","id":"1","data":{"total":7}},{"type":"c.d"}]}"#
        );
        assert_eq!(test(|_, _| Ok(None), EVENT).result, "{}");
    }

    #[test]
    fn binary_data_is_decoded() {
        for (text, want) in [
            ("", &b""[..]),
            ("AQI=", &[1, 2]),
            ("AQID", &[1, 2, 3]),
            ("+/8=", &[0xfb, 0xff]),
        ] {
            assert_eq!(decode_base64(text).as_deref(), Some(want));
        }
        for text in ["A", "!!!!", "A===", "AQI"] {
            assert_eq!(decode_base64(text), None, "{text}");
        }
        let out = test(
            |event, _| {
                assert_eq!((event.bytes(), event.json()), (Some(&[1, 2][..]), None));
                Ok(None)
            },
            r#"{"id":"1","data_base64":"AQI="}"#,
        );
        assert_eq!(out.result, "{}");
    }

    #[test]
    fn failures_say_how_to_go_on() {
        fn parse(_: &Event, _: &mut Context) -> Result<Option<Value>, Failure> {
            Ok(Some("x".parse::<i64>()?.into()))
        }
        let cases: [(Handler, &str); 4] = [
            (
                parse,
                r#"{"error":{"message":"invalid digit found in string"}}"#,
            ),
            (
                |_, _| Err(Failure::new("no \"stock\"")),
                r#"{"error":{"message":"no \"stock\""}}"#,
            ),
            (
                |_, _| Err(Failure::last("no")),
                r#"{"error":{"message":"no","retry":false}}"#,
            ),
            (
                |_, _| Err(Failure::later("no", Duration::from_millis(1500))),
                r#"{"error":{"message":"no","retry_after_seconds":1.5}}"#,
            ),
        ];
        for (handler, want) in cases {
            assert_eq!(test(handler, EVENT).result, want);
        }
        assert!(test(|_, _| Ok(None), "[")
            .result
            .contains("cannot be parsed"));
    }
}
