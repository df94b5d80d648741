// Prices an order: a function in AssemblyScript, which is not TypeScript but looks like it. `./build`
// makes price.wasm with the npm package assemblyscript, `sallyport apply` deploys it. The same function in
// other languages is in the folders beside this one.
import { attempt, event, Failure, info, Json, publish, reply, run, Value } from "../../sdk/assemblyscript";

export function sallyport_handle(): i32 {
  return run(price);
}

function price(): Failure | null {
  const order = event().get("data");
  const id = order.get("id").string();
  if (id == "") return new Failure("the order has no id", false);

  const lines = order.get("lines").elements();
  if (lines.length == 0) return new Failure(`order ${id} has no lines`, false);
  let total: i64 = 0;
  for (let i = 0; i < lines.length; i++) {
    // For an example of a retry.
    if (lines[i].get("sku").string() == "new" && attempt() == 1) return new Failure("the price list is being updated", true, 1);

    const quantity = within(lines[i].get("quantity"), 1, 1000);
    const cents = within(lines[i].get("cents"), 0, 1_000_000_000);
    if (quantity < 0 || cents < 0) return new Failure(`line ${i + 1} of order ${id} has no quantity or price`, false);
    total += quantity * cents;
  }

  info(`order ${id} costs ${total}`);
  publish("order.priced", id, Value.object().set("id", Value.string(id)).set("total", Value.integer(total)));
  reply(Value.integer(total));
  return null;
}

/** The integer, or -1 when it is none or out of bounds. */
function within(value: Json, least: i64, most: i64): i64 {
  const n = value.integer(-1);
  return n >= least && n <= most ? n : -1;
}
