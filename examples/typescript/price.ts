// Prices an order: a function in TypeScript. `sallyport apply` bundles and deploys it; there is nothing
// to build. The same function in other languages is in the folders beside this one.
import type { Handler } from "../../sdk/js";

// What an order is to be. Nothing has checked that it is, because app.toml names no schema for
// order.created, so the function does.
interface Order {
  id: string;
  lines: { sku?: string; quantity: number; cents: number }[];
}

const within = (n: any, least: number, most: number) => Number.isInteger(n) && n >= least && n <= most;

const price: Handler<Partial<Order> | undefined> = ({ data: order }, ctx) => {
  const { id, lines } = order ?? {};
  if (typeof id !== "string" || id === "") throw new ctx.Fail("the order has no id", { retry: false });
  if (!Array.isArray(lines) || lines.length === 0) throw new ctx.Fail(`order ${id} has no lines`, { retry: false });
  let total = 0;
  for (const [i, { sku, quantity, cents }] of lines.entries()) {
    // For an example of a retry.
    if (sku === "new" && ctx.attempt === 1) throw new ctx.Fail("the price list is being updated", { retryAfter: 1 });
    if (!within(quantity, 1, 1000) || !within(cents, 0, 1e9))
      throw new ctx.Fail(`line ${i + 1} of order ${id} has no quantity or price`, { retry: false });
    total += quantity * cents;
  }
  ctx.log(`order ${id} costs ${total}`);
  ctx.publish("order.priced", { id, total }, { subject: id });
  return total;
};

export default price;
