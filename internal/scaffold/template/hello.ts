import type { Handler } from "./app.types"; // what app.toml says; `sallyport dev` keeps it up to date

// Called once for every greeting.requested event, in a sandbox that is new for each of them.
const hello: Handler<"hello", { name: string }> = (event, ctx) => {
  const text = `Hello, ${event.data.name}!`;
  ctx.log(text);
  ctx.publish("greeting.made", { text });
};

export default hello;
