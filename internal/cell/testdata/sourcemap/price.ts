import { check } from "./lib/check"

interface Order {
  total: number
}

export default function price(event: { data: Order }) {
  const order: Order = event.data
  check(order.total)
  return { total: order.total * 1.2 }
}
