/**
 * Charges the customer, by the grant "payments" of app.toml, and confirms the order. The grant says where requests go and
 * adds the key of the payment service, which is not known here.
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
  ctx.log.info(`order ${id} is paid, receipt ${receipt}, and confirmed`);
  return [{ type: "order.confirmed", subject: id, data: { id, customer, receipt } }];
}
