//! ./build makes hello.wasm of it, which `sallyport dev` takes up.

use sallyport::{Context, Event, Failure, NewEvent, Value};

sallyport::handle!(hello);

/// Called once for every greeting.requested event, in a sandbox that is new for each of them.
fn hello(event: &Event, ctx: &mut Context) -> Result<Option<Value>, Failure> {
    let name = event
        .json()
        .and_then(|data| data.get("name")?.string())
        .ok_or_else(|| Failure::last("there is no name"))?;
    let text = format!("Hello, {name}!");
    ctx.info(&text);
    let data = Value::object([("text", Value::from(text.as_str()))]);
    ctx.publish(NewEvent::new("greeting.made").data(data));
    Ok(None)
}
