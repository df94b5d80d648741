// The types of what app.toml gives to its functions. Do not change this file: "sallyport dev" and
// "sallyport function types" write it anew.
//
//     import type { Handler } from "./app.types"
//     const handle: Handler<"NAME"> = async (event, ctx) => …

import type { Context, Event } from "./sallyport";

export interface Functions {
  "hello": {
    readonly grants: {
    };
    readonly publishes: "greeting.made";
  };
}

/** Handles the events of a function of app.toml: its grants and the types it publishes are known by their names. */
export type Handler<Name extends keyof Functions, Data = any> = (
  event: Event<Data>,
  ctx: Context<Functions[Name]["grants"], Functions[Name]["publishes"]>,
) => unknown;
