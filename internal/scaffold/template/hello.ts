import type { Handler } from "./sallyport";

// Called once for every greeting.requested event, in a sandbox that is new for each of them.
const hello: Handler<{ name: string }> = (event, ctx) => {
  const text = `Hello, ${event.data.name}!`;
  ctx.log(text);
  ctx.publish("greeting.made", { text });
};

export default hello;
