//! Prices an order: a function in Rust. `./build` makes price.wasm with Debian's Rust (apt-get install
//! cargo rustc libstd-rust-dev-wasm32 lld) or any other, `sallyport apply` deploys it. The same function
//! in other languages is in the folders beside this one.

use sallyport::{Context, Event, Failure, Json, NewEvent, Value};
use std::time::Duration;

sallyport::handle!(price);

fn price(event: &Event, ctx: &mut Context) -> Result<Option<Value>, Failure> {
    let order = event.json();
    let id = order
        .and_then(|o| o.get("id")?.string())
        .ok_or_else(|| Failure::last("the order has no id"))?;

    let mut total = 0;
    let mut count = 0;
    for line in order
        .and_then(|o| o.get("lines"))
        .iter()
        .flat_map(|l| l.elements())
    {
        count += 1;
        let sku = line.get("sku").and_then(Json::string).unwrap_or_default();
        if sku == "new" && ctx.attempt() == 1 {
            // For an example of a retry.
            return Err(Failure::later(
                "the price list is being updated",
                Duration::from_secs(1),
            ));
        }
        total += amount(line).ok_or_else(|| {
            Failure::last(format!(
                "line {count} of order {id} has no quantity or price"
            ))
        })?;
    }
    if count == 0 {
        return Err(Failure::last(format!("order {id} has no lines")));
    }

    ctx.info(&format!("order {id} costs {total}"));
    let data = Value::object([("id", Value::from(&*id)), ("total", total.into())]);
    ctx.publish(NewEvent::new("order.priced").subject(&*id).data(data));
    Ok(Some(total.into()))
}

/// What a line costs, in cents.
fn amount(line: Json) -> Option<i64> {
    let quantity = line
        .get("quantity")?
        .integer()
        .filter(|n| (1..=1000).contains(n))?;
    let cents = line
        .get("cents")?
        .integer()
        .filter(|n| (0..=1_000_000_000).contains(n))?;
    Some(quantity * cents)
}
