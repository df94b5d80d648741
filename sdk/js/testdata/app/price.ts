// What the types of app.toml let a function write, and what they do not, checked by the TypeScript compiler: the lines that are
// marked as errors must be some.
import type { Functions, Handler } from "./app.types";
import type { BlobGrant, HttpGrant, KVGrant } from "./sallyport";

type Order = { id: string };

const price: Handler<"price", Order> = async (event, ctx) => {
  const { carts, charges, cloud, files, orders, pictures, search, status, tax, token } = ctx.grants;
  const id: string = event.data.id;

  // @ts-expect-error: no such grant
  ctx.grants.picture;
  // @ts-expect-error: a grant of kind publish is not used while a function runs
  ctx.grants.out;

  const made: Response = await charges.fetch({ values: { kind: "charges", id: 1 }, query: { limit: 2 }, method: "POST", body: "x" });
  await files.fetch({ values: { path: "a/b" } });
  await status.fetch();
  await status.fetch({ headers: { accept: "text/plain" } });
  await search.fetch({ query: { anything: ["a", 1] } });
  // @ts-expect-error: both values have to be there
  await charges.fetch({ values: { kind: "charges" } });
  // @ts-expect-error: no values at all
  await charges.fetch();
  // @ts-expect-error: no such value
  await charges.fetch({ values: { kind: "charges", ids: 1 } });
  // @ts-expect-error: the template has no value
  await status.fetch({ values: { id: 1 } });
  // @ts-expect-error: no such method
  await charges.fetch({ values: { kind: "a", id: 1 }, method: "DELETE" });
  // @ts-expect-error: the query may not have that
  await charges.fetch({ values: { kind: "a", id: 1 }, query: { limits: 2 } });
  // @ts-expect-error: the query may have nothing
  await status.fetch({ query: { limit: 2 } });
  // @ts-expect-error: no such operation
  await charges.get({});

  const { rows, changed } = await orders.insert(id, 5);
  await orders.all();
  await orders.transaction([{ query: "insert", params: [id, null] }, { query: "all" }]);
  // @ts-expect-error: no such statement
  await orders.finds(id);
  // @ts-expect-error: it has two parameters
  await orders.insert(id);
  // @ts-expect-error: it has one parameter
  await orders.find(id, 1);
  // @ts-expect-error: no such statement
  await orders.transaction([{ query: "drop" }]);
  // @ts-expect-error: it has a parameter
  await orders.transaction([{ query: "find" }]);
  // @ts-expect-error: a function is no value
  await orders.find(() => 1);

  const version: number = await carts.set("k", { a: 1 }, { ttl: 60 });
  await ctx.grants["carts-read"].get("k");
  // @ts-expect-error: it only reads
  await ctx.grants["carts-read"].set("k", 1);

  const { digest, size } = await pictures.put("p", (async function* () { yield new Uint8Array(1); yield "text"; })(), { version: 0 });
  const stream = await pictures.stream("p", { offset: 1 });
  if (stream !== null) for await (const part of stream) size + part.length + stream.size;
  const some: Uint8Array | null = await ctx.grants["pictures-read"].get("p");
  // @ts-expect-error: it only reads
  await ctx.grants["pictures-read"].put("p", "x");
  // @ts-expect-error: a number is no content
  await pictures.put("p", 1);

  const value: string | Uint8Array = await token.value();
  const reply: any = await tax.invoke({ total: 1 });
  const jwt: string = (await cloud.token()).token;
  ctx.publish("order.priced", { rows, changed, version, digest, some, value, reply, jwt, status: made.status });
  ctx.publish("odd-type");
  // @ts-expect-error: no grant has that type
  ctx.publish("order.prised");
  // @ts-expect-error: a grant is not for the function to replace
  ctx.grants.carts = carts;
};
export default price;

export const tax: Handler<"tax"> = (event, ctx) => {
  // @ts-expect-error: it has no grants
  ctx.grants.carts;
  // @ts-expect-error: it publishes nothing
  ctx.publish("order.priced");
  return event.data;
};

// @ts-expect-error: no such function
export type None = Handler<"prices">;
// What is written without the names goes on to be right.
export const grants: [HttpGrant, KVGrant, BlobGrant] = [{} as Functions["price"]["grants"]["search"] as any, {} as Functions["price"]["grants"]["carts"], {} as any];
