// Replies with what it reads of the data's member "text", which is taken for JSON, or with a
// random number: see json_test.go.
import { event, Failure, Json, reply, run, Value } from "../../../../sdk/assemblyscript";

export function sallyport_handle(): i32 {
  return run(read);
}

function read(): Failure | null {
  const data = event().get("data");
  if (data.get("way").string() == "random") {
    reply(Value.string(Math.random().toString()));
    return null;
  }
  const value = Json.parse(data.get("text").string());
  if (!value.exists) return new Failure("not JSON", false);
  reply(data.get("way").string() == "raw" ? Value.json(value) : copy(value));
  return null;
}

function copy(value: Json): Value {
  if (value.isString) return Value.string(value.string());
  if (value.first == 0x5b) {
    const all: Value[] = [];
    const elements = value.elements();
    for (let i = 0; i < elements.length; i++) all.push(copy(elements[i]));
    return Value.array(all);
  }
  if (value.first == 0x7b) {
    const object = Value.object();
    return value.get("a").exists ? object.set("a", copy(value.get("a"))) : object;
  }
  const n = value.integer(i64.MIN_VALUE);
  return n == i64.MIN_VALUE ? Value.json(value) : Value.integer(n);
}
