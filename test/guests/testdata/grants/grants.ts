// Uses the grant that the data names, and replies with what came of it: see grants_test.go.
import { event, Failure, reply, run, useGrant, Value } from "../../../../sdk/assemblyscript";

export function sallyport_handle(): i32 {
  return run(use);
}

function use(): Failure | null {
  const data = event().get("data");
  const answer = useGrant(data.get("grant").string(), data.get("op").string(), data.get("request").string(), String.UTF8.encode(data.get("body").string()));
  reply(Value.object().set("served", Value.bool(!answer.failed)).set("value", Value.string(answer.json)).set("body", Value.string(String.UTF8.decode(answer.body))));
  return null;
}
