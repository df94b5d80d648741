// What a function may write, and what it may not, checked by the TypeScript compiler: the lines that are marked
// as errors must be some.
import type { Context, Event as CloudEvent, Handler, HttpGrant } from "..";

type Order = { id: string; items: { sku: string; price: number }[] };

const handle: Handler<Order> = async (event, ctx) => {
  const total: number = event.data.items.reduce((sum, item) => sum + item.price, 0);
  ctx.log("total", total);
  ctx.log.warn(total);
  ctx.publish("order.priced", { total }, { subject: event.data.id });
  if (total < 0) throw new ctx.Fail("negative", { retry: false, cause: new Error("x") });
  // @ts-expect-error: an order has no customer
  event.data.customer;
  // @ts-expect-error: an attempt is not for the function to change
  ctx.attempt = 2;
  // @ts-expect-error: no such option
  new ctx.Fail("x", { retries: 1 });
  return [{ type: "order.priced", data: { total } }];
};
export default handle;

export async function web(event: CloudEvent, ctx: Context): Promise<string> {
  const left: number = ctx.deadline - Date.now();
  const url = new URL("/a", "https://example.com");
  url.searchParams.append("a", "1");
  for (const [name, value] of new URLSearchParams({ a: "b" })) console.log(name.length + value.length);
  const bytes: Uint8Array = new TextEncoder().encode("text");
  const text: string = new TextDecoder("latin1", { fatal: true }).decode(bytes.subarray(1), { stream: true });
  const digest: ArrayBuffer = await crypto.subtle.digest({ name: "SHA-256" }, bytes);
  const id: string = crypto.randomUUID();
  const numbers: Uint32Array = crypto.getRandomValues(new Uint32Array(2));
  const copy: Map<string, number[]> = structuredClone(new Map([["a", [1]]]));
  const controller = new AbortController();
  controller.signal.addEventListener("abort", (e) => console.log(e.type), { once: true });
  const signal: AbortSignal = AbortSignal.any([controller.signal, AbortSignal.timeout(5)]);
  signal.throwIfAborted();
  const timer: number = setTimeout((n: number) => console.info("%d", n), 1, 2);
  clearTimeout(timer);
  queueMicrotask(() => reportError(new DOMException("m", "AbortError")));
  new EventTarget().dispatchEvent(new CustomEvent("x", { detail: { a: 1 } }));
  performance.now() + performance.timeOrigin + left + digest.byteLength + numbers.length + copy.size;
  // @ts-expect-error: no arguments of another kind
  crypto.subtle.digest("MD5", bytes);
  // @ts-expect-error: no floating-point numbers
  crypto.getRandomValues(new Float32Array(1));
  // @ts-expect-error: no process
  process.env.HOME;
  // @ts-expect-error: no Buffer
  Buffer.from("x");
  // @ts-expect-error: no document
  document.title;
  // @ts-expect-error: no Blob
  new Blob([]);
  const request = new Request("https://example.com", { method: "PUT", headers: [["accept", "text/plain"]], body: "x", signal: AbortSignal.timeout(5) });
  await fetch(request.clone(), { method: "POST" });
  // @ts-expect-error: bodies are not streamed
  request.body.getReader();
  const api: HttpGrant = ctx.grants.api;
  const made = await api.fetch({ values: { id: 1 }, query: { limit: [1, "2"] }, headers: new Headers({ accept: "text/plain" }), body: new URLSearchParams() });
  const answer: Response = await fetch(new URL("https://example.com"), { method: "POST", body: new Uint8Array(), signal: AbortSignal.timeout(5) });
  const status: number = (await api.call("fetch", { values: {} })).value.status;
  return text + id + atob(btoa("x")) + event.id + (await made.text()) + [...answer.headers].length + status;
}
