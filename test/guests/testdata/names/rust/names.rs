//! Names its grants, one as a text that is made on the heap: see names_test.go.

use sallyport::{Context, Event, Failure, Value};

sallyport::handle!(handle);

fn handle(event: &Event, ctx: &mut Context) -> Result<Option<Value>, Failure> {
    let request = Value::raw("{}").ok_or_else(|| Failure::last("the request is not JSON"))?;
    let mut carts = String::from("carts");
    if event.json().is_none() {
        carts.push('x');
    }
    let _ = ctx.call(&carts, "get", &request, b"");
    let _ = ctx.call("orders", "query", &request, b"");
    Ok(None)
}
