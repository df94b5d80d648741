/** @type {import("../../sdk/js").Handler<{ id: string, customer: string }>} */
export default function confirm(event, ctx) {
  ctx.log.info(`order ${event.data.id} is confirmed`);
  return [{ type: "order.confirmed", subject: event.data.id, data: { id: event.data.id, customer: event.data.customer } }];
}
