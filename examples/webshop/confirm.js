/**
 * Charges the customer, keeps the receipt and confirms the order, each by a grant of app.toml. "payments" says where requests go and
 * adds the key of the payment service, which is not known here; "receipts" has the statements.
 *
 * @type {import("../../sdk/js").Handler<{ id: string, customer: string }>}
 */
export default async function confirm(event, ctx) {
  const { id, customer } = event.data;
  const charge = await ctx.grants.payments.fetch({
    values: { order: id },
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ customer }),
  });
  if (!charge.ok) throw new ctx.Fail(`the payment service answers ${charge.status}`, { retry: charge.status >= 500 });
  const { receipt } = await charge.json();
  // An event may come twice: only the first keeps the receipt, and counts.
  const { changed } = await ctx.grants.receipts.keep(id, customer, receipt);
  const orders = changed > 0 ? await ctx.grants.customers.increment(customer) : undefined;
  ctx.log.info(`order ${id} is paid, receipt ${receipt}, and confirmed`, { orders });
  return [{ type: "order.confirmed", subject: id, data: { id, customer, receipt } }];
}
