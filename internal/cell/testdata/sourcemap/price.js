// lib/check.ts
function check(total) {
  if (total < 0) {
    throw new RangeError(`total is ${total}`);
  }
}

// price.ts
function price(event) {
  const order = event.data;
  check(order.total);
  return { total: order.total * 1.2 };
}
export {
  price as default
};
