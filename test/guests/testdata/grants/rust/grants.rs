//! Uses the grant that the data names, and replies with what came of it: see grants_test.go.

use sallyport::{Context, Event, Failure, Value};

sallyport::handle!(handle);

fn handle(event: &Event, ctx: &mut Context) -> Result<Option<Value>, Failure> {
    let text = |name: &str| {
        event
            .json()
            .and_then(|data| data.get(name)?.string())
            .ok_or_else(|| Failure::last(format!("no {name}")))
    };
    let request = text("request")?;
    let request = Value::raw(&request).ok_or_else(|| Failure::last("the request is not JSON"))?;
    let used = ctx.call(
        &text("grant")?,
        &text("op")?,
        &request,
        text("body")?.as_bytes(),
    );
    let (served, value, body) = match used {
        Ok(answer) => (true, Value::from(answer.value), answer.body),
        Err(e) => {
            let failed = Value::object([("code", e.code.into())]);
            (false, Value::from(failed.to_string()), vec![])
        }
    };
    Ok(Some(Value::object([
        ("served", served.into()),
        ("value", value),
        ("body", Value::from(&*String::from_utf8_lossy(&body))),
    ])))
}
