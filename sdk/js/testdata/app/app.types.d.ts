// The types of what app.toml gives to its functions. Do not change this file: "sallyport dev" and
// "sallyport function types" write it anew.
//
//     import type { Handler } from "./app.types"
//     const handle: Handler<"NAME"> = async (event, ctx) => …

import type { BlobGrant, BlobReader, Context, Event, HttpGrant, IdentityGrant, InvokeGrant, KVGrant, KVReader, SQLGrant, SQLValue, SecretGrant } from "./sallyport";

export interface Functions {
  "price": {
    readonly grants: {
      /** Values in carts. */
      readonly "carts": KVGrant;
      /** Reads values of carts. */
      readonly "carts-read": KVReader;
      /** GET, POST https://api.example.org/v1/{kind}/{id} */
      readonly "charges": HttpGrant<"GET" | "POST", "kind" | "id", "limit" | "page">;
      /** Tokens for https://cloud.example.com/* /x. */
      readonly "cloud": IdentityGrant;
      /** GET https://files.example.org/{path...} */
      readonly "files": HttpGrant<"GET", "path", never>;
      /** Statements on a database. */
      readonly "orders": SQLGrant<{
        /** select id, total from orders */
        "all": [];
        /** select id, total from orders where id = $1 */
        "find": [$1: SQLValue];
        /** insert into orders (id, total) /* a comment * / values ($1, $2) */
        "insert": [$1: SQLValue, $2: SQLValue];
      }>;
      /** Objects in pictures. */
      readonly "pictures": BlobGrant;
      /** Reads objects of pictures. */
      readonly "pictures-read": BlobReader;
      /** GET https://api.example.org/search */
      readonly "search": HttpGrant<"GET", never, string>;
      /** GET https://api.example.org/status */
      readonly "status": HttpGrant<"GET", never, never>;
      /** Calls the function tax. */
      readonly "tax": InvokeGrant;
      /** The value of secret:api-token. */
      readonly "token": SecretGrant;
    };
    readonly publishes: "odd-type" | "order.priced" | "order.refused";
  };
  "tax": {
    readonly grants: {
    };
    readonly publishes: never;
  };
}

/** Handles the events of a function of app.toml: its grants and the types it publishes are known by their names. */
export type Handler<Name extends keyof Functions, Data = any> = (
  event: Event<Data>,
  ctx: Context<Functions[Name]["grants"], Functions[Name]["publishes"]>,
) => unknown;
