//! Uses the grant that the data names, and replies with what came of it: see grants_test.go.

use sallyport::{host, Context, Event, Failure, Value};

sallyport::handle!(handle);

fn handle(event: &Event, _: &mut Context) -> Result<Option<Value>, Failure> {
    let text = |name: &str| {
        event
            .json()
            .and_then(|data| data.get(name)?.string())
            .ok_or_else(|| Failure::last(format!("no {name}")))
    };
    let number = host::grant_start(
        &text("grant")?,
        &text("op")?,
        &text("request")?,
        text("body")?.as_bytes(),
    );
    let (served, json, body) = host::grant_wait(number);
    Ok(Some(Value::object([
        ("served", served.into()),
        ("value", Value::from(&*String::from_utf8_lossy(&json))),
        ("body", Value::from(&*String::from_utf8_lossy(&body))),
    ])))
}
