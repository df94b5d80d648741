import type { Handler } from "../../sdk/js";

type Item = { sku: string; quantity: number };
type Order = { id: string; customer: string; items: Item[] };

// Prices in cents.
const prices: Record<string, number> = { book: 1990, pen: 250, flaky: 500, poison: 1 };

const price: Handler<Order> = (event, ctx) => {
  const lines = event.data.items.map(({ sku, quantity }) => {
    const unit = prices[sku];
    if (unit === undefined) throw new ctx.Fail(`no price for ${sku}`, { retry: false });
    return { sku, quantity, amount: unit * quantity };
  });
  const total = lines.reduce((sum, line) => sum + line.amount, 0);
  ctx.log.info(`order ${event.data.id}: ${(total / 100).toFixed(2)}`);
  ctx.publish("order.priced", { id: event.data.id, customer: event.data.customer, lines, total });
  return { total };
};

export default price;
