//! What a function may reach while it runs: its grants, by their names in app.toml.

use std::fmt;
use std::time::Duration;

use crate::host::GrantAnswer;
use crate::{decode_base64, Context, Failure, Json, Value};

/// Why the use of a grant failed. With `?` it becomes a [`Failure`] that is tried again if [`retry`](GrantError::retry) says so.
#[derive(Clone, Debug, PartialEq)]
pub struct GrantError {
    /// A code that stays the same, such as `grant.timeout`: `sallyport explain CODE` says what it means.
    pub code: String,
    /// What is wrong, for people.
    pub message: String,
    /// Whether the same use may succeed later.
    pub retry: bool,
    /// Not earlier than in that time.
    pub retry_after: Option<Duration>,
}

impl GrantError {
    fn parse(text: &str) -> GrantError {
        let all = Json::parse(text);
        let get = |name: &str| all.and_then(|v| v.get(name));
        let string = |name: &str| get(name).and_then(Json::string).unwrap_or_default();
        GrantError {
            code: string("code").into_owned(),
            message: string("message").into_owned(),
            retry: get("retry").and_then(Json::boolean).unwrap_or(false),
            retry_after: get("retry_after_seconds")
                .and_then(Json::number)
                .filter(|s| (0.0..=1e9).contains(s))
                .map(Duration::from_secs_f64),
        }
    }

    /// The error as the host writes it.
    pub(crate) fn value(&self) -> Value {
        let mut members = vec![
            ("code", Value::from(&*self.code)),
            ("message", Value::from(&*self.message)),
            ("retry", self.retry.into()),
        ];
        members.extend(
            self.retry_after
                .map(|wait| ("retry_after_seconds", wait.as_secs_f64().into())),
        );
        Value::object(members)
    }

    fn malformed(what: &str) -> GrantError {
        GrantError {
            code: "internal".into(),
            message: format!("the answer of the grant has no {what}"),
            retry: false,
            retry_after: None,
        }
    }
}

impl fmt::Display for GrantError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}]", self.message, self.code)
    }
}

impl From<GrantError> for Failure {
    fn from(e: GrantError) -> Failure {
        match (e.retry, e.retry_after) {
            (false, _) => Failure::last(e.to_string()),
            (true, Some(wait)) => Failure::later(e.to_string(), wait),
            (true, None) => Failure::new(e.to_string()),
        }
    }
}

/// What came of the use of a grant.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// A JSON value, as text: see [`Answer::json`].
    pub value: String,
    /// What came with it as bytes.
    pub body: Vec<u8>,
}

impl Answer {
    /// The value.
    pub fn json(&self) -> Option<Json<'_>> {
        Json::parse(&self.value)
    }
}

/// A use of a grant that was begun, for [`Context::wait`].
#[derive(Debug)]
#[must_use = "its answer is what comes of it"]
pub struct Use(i32);

/// What a grant of kind http is asked to send. The credential of the grant is added outside of the function.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HttpRequest<'a> {
    /// Empty where the grant has one method.
    pub method: &'a str,
    /// What takes the places of {name} in the URL of the grant.
    pub values: &'a [(&'a str, &'a str)],
    /// In place of `values` and `query`, when it is not empty: a URL that the grant makes.
    pub url: &'a str,
    /// What the grant lets the function add.
    pub query: &'a [(&'a str, &'a str)],
    /// What the grant lets the function add.
    pub headers: &'a [(&'a str, &'a str)],
    /// The body.
    pub body: &'a [u8],
}

/// An answer, whole. One of any status is no error.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpResponse {
    /// The status.
    pub status: u16,
    /// Names, in lower case, and values.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl HttpResponse {
    /// The first value of a header, whose name is in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(n, _)| n == name);
        found.map(|(_, v)| v.as_str())
    }
}

impl Context<'_> {
    /// Begins to use a grant and does not wait, so that several uses run at the same time. What `op` is, and what the request
    /// holds, is of the grant's kind: design/abi.md has them.
    pub fn begin(&mut self, grant: &str, op: &str, request: &Value, body: &[u8]) -> Use {
        Use(self.host.grant_start(grant, op, &request.to_string(), body))
    }

    /// Waits for the answer to a use.
    pub fn wait(&mut self, begun: Use) -> Result<Answer, GrantError> {
        let GrantAnswer { served, json, body } = self.host.grant_wait(begun.0);
        let value = String::from_utf8(json).map_err(|_| GrantError::malformed("text"))?;
        if served {
            Ok(Answer { value, body })
        } else {
            Err(GrantError::parse(&value))
        }
    }

    /// Uses a grant and waits for the answer.
    pub fn call(
        &mut self,
        grant: &str,
        op: &str,
        request: &Value,
        body: &[u8],
    ) -> Result<Answer, GrantError> {
        let begun = self.begin(grant, op, request, body);
        self.wait(begun)
    }

    /// Calls the function that a grant of kind invoke names. The value of the answer is its reply.
    pub fn invoke(&mut self, grant: &str, data: Value) -> Result<Answer, GrantError> {
        self.call(grant, "invoke", &Value::object([("data", data)]), &[])
    }

    /// Runs a statement of a grant of kind sql, by its name in the manifest. The value of the answer has `rows`, a list of objects, and `changed`.
    pub fn query(
        &mut self,
        grant: &str,
        statement: &str,
        params: Vec<Value>,
    ) -> Result<Answer, GrantError> {
        let request = Value::object([("query", statement.into()), ("params", params.into())]);
        self.call(grant, "query", &request, &[])
    }

    /// Sends a request by a grant of kind http.
    pub fn fetch(
        &mut self,
        grant: &str,
        request: &HttpRequest,
    ) -> Result<HttpResponse, GrantError> {
        let pair = |(n, v): &(&str, &str)| Value::from(vec![Value::from(*n), Value::from(*v)]);
        let pairs = |list: &[(&str, &str)]| Value::from(list.iter().map(pair).collect::<Vec<_>>());
        let mut wire = vec![
            ("query", pairs(request.query)),
            ("headers", pairs(request.headers)),
        ];
        if !request.method.is_empty() {
            wire.push(("method", request.method.into()));
        }
        if request.url.is_empty() {
            let values = request.values.iter().map(|(n, v)| (*n, Value::from(*v)));
            wire.push(("values", Value::object(values)));
        } else {
            wire[0] = ("url", request.url.into());
        }
        let Answer { value, body } =
            self.call(grant, "fetch", &Value::object(wire), request.body)?;
        let head = Json::parse(&value);
        let status = head
            .and_then(|h| h.get("status")?.integer())
            .ok_or_else(|| GrantError::malformed("status"))?;
        let mut headers = vec![];
        for h in head
            .and_then(|h| h.get("headers"))
            .iter()
            .flat_map(|l| l.elements())
        {
            let mut both = h.elements().filter_map(Json::string);
            if let (Some(n), Some(v)) = (both.next(), both.next()) {
                headers.push((n.into_owned(), v.into_owned()));
            }
        }
        Ok(HttpResponse {
            status: status as u16,
            headers,
            body,
        })
    }

    /// The value of a grant of kind secret. Ask again rather than keep it: it may be rotated.
    pub fn secret(&mut self, grant: &str) -> Result<Vec<u8>, GrantError> {
        let answer = self.call(grant, "value", &Value::object::<&str>([]), &[])?;
        let get = |name: &str| answer.json().and_then(|v| v.get(name)?.string());
        if let Some(text) = get("value") {
            return Ok(text.into_owned().into_bytes());
        }
        get("base64")
            .and_then(|text| decode_base64(&text))
            .ok_or_else(|| GrantError::malformed("value"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{test_with, Event, GrantUse};

    const EVENT: &str = r#"{"specversion":"1.0","id":"1","source":"/","type":"t"}"#;

    fn served(value: &str, body: &[u8]) -> Result<Answer, GrantError> {
        Ok(Answer {
            value: value.into(),
            body: body.into(),
        })
    }

    /// Runs a handler whose grants answer like this, and returns what they were asked and the result.
    fn asked(
        handler: crate::Handler,
        answer: fn(&GrantUse) -> Result<Answer, GrantError>,
    ) -> (Vec<String>, String) {
        let mut uses = vec![];
        let out = test_with(handler, EVENT, |u| {
            let body = String::from_utf8_lossy(u.body);
            uses.push(format!("{} {} {} {body}", u.grant, u.op, u.request));
            answer(u)
        });
        (uses, out.result)
    }

    #[test]
    fn kinds_are_asked_in_their_form() {
        let handler = |_: &Event, ctx: &mut Context| {
            let rows = ctx.query("db", "find", vec!["o-1".into(), Value::null()])?;
            assert_eq!(
                rows.json().unwrap().get("changed").unwrap().integer(),
                Some(2)
            );
            let request = HttpRequest {
                method: "POST",
                values: &[("id", "x y")],
                query: &[("limit", "5")],
                body: b"hello",
                ..HttpRequest::default()
            };
            let answer = ctx.fetch("api", &request)?;
            assert_eq!((answer.status, answer.header("x-a")), (201, Some("1")));
            assert_eq!(answer.body, b"made");
            let request = HttpRequest {
                url: "https://api.example.org/v1/a",
                ..HttpRequest::default()
            };
            ctx.fetch("api", &request)?;
            assert_eq!(ctx.secret("key")?, b"abc");
            assert_eq!(ctx.secret("raw")?, [255]);
            let reply = ctx.invoke("tax", Value::object([("total", 10.into())]))?;
            Ok(reply.json().map(Value::from))
        };
        let (uses, result) = asked(handler, |u| match u.grant {
            "db" => served(r#"{"rows":[],"changed":2}"#, b""),
            "api" => served(
                r#"{"status":201,"headers":[["x-a","1"]],"url":"u"}"#,
                b"made",
            ),
            "key" => served(r#"{"value":"abc","version":1}"#, b""),
            "raw" => served(r#"{"base64":"/w==","version":1}"#, b""),
            _ => served("19", b""),
        });
        assert_eq!(
            uses,
            [
                r#"db query {"query":"find","params":["o-1",null]} "#,
                r#"api fetch {"query":[["limit","5"]],"headers":[],"method":"POST","values":{"id":"x y"}} hello"#,
                r#"api fetch {"url":"https://api.example.org/v1/a","headers":[]} "#,
                "key value {} ",
                "raw value {} ",
                r#"tax invoke {"data":{"total":10}} "#,
            ]
        );
        assert_eq!(result, r#"{"reply":19}"#);
    }

    #[test]
    fn a_failed_use_decides_about_another_attempt() {
        let handler = |_: &Event, ctx: &mut Context| {
            ctx.query("db", "find", vec![])?;
            Ok(None)
        };
        let (_, result) = asked(handler, |_| {
            Err(GrantError {
                code: "grant.timeout".into(),
                message: "late".into(),
                retry: true,
                retry_after: Some(Duration::from_secs(2)),
            })
        });
        assert_eq!(
            result,
            r#"{"error":{"message":"late [grant.timeout]","retry_after_seconds":2}}"#
        );
        let denied = |_: &GrantUse| {
            Err(GrantError::parse(
                r#"{"code":"access.denied","message":"no","retry":false}"#,
            ))
        };
        assert_eq!(
            asked(handler, denied).1,
            r#"{"error":{"message":"no [access.denied]","retry":false}}"#
        );
        assert!(crate::test(handler, EVENT)
            .result
            .contains("grant.not_granted"));
    }
}
