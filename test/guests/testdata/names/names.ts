// Names its grants: see names_test.go.
import { Failure, run, useGrant } from "../../../../sdk/assemblyscript";

export function sallyport_handle(): i32 {
  return run(use);
}

function use(): Failure | null {
  useGrant("carts", "get", '{"key":"a"}', new ArrayBuffer(0));
  useGrant("orders", "query", '{"query":"all"}', new ArrayBuffer(0));
  return null;
}
