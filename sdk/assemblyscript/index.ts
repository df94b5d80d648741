/**
 * Write a Sallyport function in AssemblyScript.
 *
 *     import { event, Failure, info, reply, run, Value } from "./sallyport";
 *
 *     export function sallyport_handle(): i32 {
 *       return run((): Failure | null => {
 *         const name = event().get("data").get("name").string();
 *         if (name == "") return new Failure("there is no name", false);
 *         info("hello, " + name);
 *         reply(Value.string(name));
 *         return null;
 *       });
 *     }
 *
 * Build it with
 *
 *     asc greet.ts --runtime stub --initialMemory 8 --exportStart _initialize \
 *       --use abort=sallyport/abort --use seed=sallyport/seed
 *
 * where `sallyport` is this file's path from there. An instance whose memory has grown does not serve
 * another event, so it begins with 8 pages of 64 KiB. Each event starts from the memory as it was after
 * initialisation, so nothing needs to be freed. The contract beneath it is design/abi.md.
 */

// The calls that the host offers.

@external("sallyport", "event_size") declare function eventSize(): i32;
@external("sallyport", "event_read") declare function eventRead(to: usize, length: i32): i32;
@external("sallyport", "result_write") declare function resultWrite(from: usize, length: i32): i32;
@external("sallyport", "log") declare function hostLog(level: i32, from: usize, length: i32): void;

@external("wasi_snapshot_preview1", "random_get") declare function randomGet(to: usize, length: i32): i32;

/** Which try at this delivery this is, from 1. */
@external("sallyport", "attempt") export declare function attempt(): i32;
/** When the invocation is stopped, in milliseconds since 1970. */
@external("sallyport", "deadline") export declare function deadline(): i64;

@external("sallyport", "grant_start") declare function grantStart(grant: usize, grantLength: i32, op: usize, opLength: i32, request: usize, requestLength: i32, body: usize, bodyLength: i32): i32;
@external("sallyport", "grant_wait") declare function grantWait(number: i32, milliseconds: i64): i32;
@external("sallyport", "grant_status") declare function grantStatus(number: i32): i32;
@external("sallyport", "grant_size") declare function grantSize(number: i32, part: i32): i32;
@external("sallyport", "grant_read") declare function grantRead(number: i32, part: i32, offset: i32, to: usize, length: i32): i32;
@external("sallyport", "grant_end") declare function grantEnd(number: i32): void;

/** What came of the use of a grant: JSON, which is {code, message, retry} when it failed, and bytes. */
export class Answer {
  constructor(readonly failed: bool, readonly json: string, readonly body: ArrayBuffer) {}
}

/** Begins to use a grant and does not wait, so that several uses run at the same time. The request is a JSON object of the grant's kind. */
export function beginGrant(grant: string, op: string, request: string, body: ArrayBuffer = new ArrayBuffer(0)): i32 {
  const g = String.UTF8.encode(grant), o = String.UTF8.encode(op), r = String.UTF8.encode(request);
  return grantStart(changetype<usize>(g), g.byteLength, changetype<usize>(o), o.byteLength, changetype<usize>(r), r.byteLength, changetype<usize>(body), body.byteLength);
}

/** Waits for the answer to a use, and takes it. */
export function waitGrant(number: i32): Answer {
  grantWait(number, -1);
  const json = new ArrayBuffer(max(grantSize(number, 0), 0)), body = new ArrayBuffer(max(grantSize(number, 1), 0));
  grantRead(number, 0, 0, changetype<usize>(json), json.byteLength);
  grantRead(number, 1, 0, changetype<usize>(body), body.byteLength);
  const failed = grantStatus(number) != 1;
  grantEnd(number);
  return new Answer(failed, String.UTF8.decode(json), body);
}

/** Uses a grant and waits for the answer. */
export function useGrant(grant: string, op: string, request: string, body: ArrayBuffer = new ArrayBuffer(0)): Answer {
  return waitGrant(beginGrant(grant, op, request, body));
}

function log(level: i32, line: string): void {
  const text = String.UTF8.encode(line);
  hostLog(level, changetype<usize>(text), text.byteLength);
}

/** Writes a line to the function log. */
export function debug(line: string): void { log(0, line); }
export function info(line: string): void { log(1, line); }
export function warn(line: string): void { log(2, line); }
export function error(line: string): void { log(3, line); }

/** A failed assertion or a trap of the runtime: its message goes to the function log, and the attempt fails. */
export function abort(message: string | null, file: string | null, line: u32, column: u32): void {
  error((message ? message : "abort") + " at " + (file ? file : "?") + ":" + line.toString() + ":" + column.toString());
  unreachable();
}

/**
 * The seed of Math.random, which the runtime asks for at the first use: in the handler, that is once
 * for each event. A module that draws in its initialisation is initialised for each event.
 */
export function seed(): f64 {
  const bits = memory.data(8);
  if (randomGet(bits, 8) != 0) unreachable();
  return reinterpret<f64>((load<u64>(bits) >> 12) | 0x3ff0000000000000); // between 1 and 2
}

/** How deep arrays and objects may be nested. */
const DEPTH = 64;

/** A JSON value where it is in a text. The text of no value is empty, and what is asked of it is no value. */
export class Json {
  constructor(readonly text: string) {}

  /** The value that a text is; no value when it is not one JSON value. */
  static parse(text: string): Json {
    const start = skipSpace(text, 0);
    const end = skip(text, start, 0);
    return new Json(end < 0 || skipSpace(text, end) < text.length ? "" : text.substring(start, end));
  }

  get exists(): bool { return this.text.length > 0; }
  get isString(): bool { return this.first == 0x22; }
  get isNull(): bool { return this.text == "null"; }
  get first(): i32 { return this.exists ? this.text.charCodeAt(0) : 0; }

  /** The member of an object with this name. */
  get(name: string): Json {
    const all = this.items(0x7b);
    for (let i = 0; i + 1 < all.length; i += 2) {
      if (all[i].string() == name) return all[i + 1];
    }
    return new Json("");
  }

  /** The elements of an array; none of anything else. */
  elements(): Json[] { return this.items(0x5b); }

  /** The elements of an array, or the names and values of an object. */
  private items(bracket: i32): Json[] {
    const all: Json[] = [];
    if (this.first != bracket) return all;
    const text = this.text;
    for (let at = skipSpace(text, 1); at < text.length - 1; ) {
      const c = text.charCodeAt(at);
      if (c != 0x2c && c != 0x3a) { // neither comma nor colon
        const end = skip(text, at, 1);
        all.push(new Json(text.substring(at, end)));
        at = end - 1;
      }
      at = skipSpace(text, at + 1);
    }
    return all;
  }

  /** The text of a string; "" of anything else. */
  string(): string {
    if (!this.isString) return "";
    const inside = this.text.substring(1, this.text.length - 1);
    return inside.includes("\\") ? unescape(inside) : inside;
  }

  /** A number that is an integer, written as one, of at most 15 digits; otherwise. */
  integer(otherwise: i64): i64 {
    const start = this.first == 0x2d ? 1 : 0;
    if (this.text.length - start > 15 || this.text.length == start) return otherwise;
    for (let i = start; i < this.text.length; i++) {
      const c = this.text.charCodeAt(i);
      if (c < 0x30 || c > 0x39) return otherwise;
    }
    return I64.parseInt(this.text);
  }
}

function at(text: string, i: i32): i32 { return i < text.length ? text.charCodeAt(i) : -1; }

function skipSpace(text: string, i: i32): i32 {
  for (let c = at(text, i); c == 0x20 || c == 0x09 || c == 0x0a || c == 0x0d; c = at(text, i)) i++;
  return i;
}

/** Returns the end of the value that begins at i, or -1 when there is none or it is not JSON. */
function skip(text: string, i: i32, depth: i32): i32 {
  switch (at(text, i)) {
    case 0x22: return skipString(text, i);
    case 0x7b: return skipItems(text, i + 1, 0x7d, depth);
    case 0x5b: return skipItems(text, i + 1, 0x5d, depth);
    case 0x74: return skipWord(text, i, "true");
    case 0x66: return skipWord(text, i, "false");
    case 0x6e: return skipWord(text, i, "null");
    default: return skipNumber(text, i);
  }
}

function skipItems(text: string, i: i32, close: i32, depth: i32): i32 {
  i = skipSpace(text, i);
  if (at(text, i) == close) return i + 1;
  if (depth > DEPTH) return -1;
  while (true) {
    if (close == 0x7d) {
      i = skipString(text, i);
      if (i < 0) return -1;
      i = skipSpace(text, i);
      if (at(text, i) != 0x3a) return -1;
      i = skipSpace(text, i + 1);
    }
    i = skip(text, i, depth + 1);
    if (i < 0) return -1;
    i = skipSpace(text, i);
    if (at(text, i) == close) return i + 1;
    if (at(text, i) != 0x2c) return -1;
    i = skipSpace(text, i + 1);
  }
}

function skipWord(text: string, i: i32, word: string): i32 {
  return text.substr(i, word.length) == word ? i + word.length : -1;
}

function isHex(c: i32): bool {
  return (c >= 0x30 && c <= 0x39) || ((c | 0x20) >= 0x61 && (c | 0x20) <= 0x66);
}

function skipString(text: string, i: i32): i32 {
  if (at(text, i) != 0x22) return -1;
  while (true) {
    let c = at(text, ++i);
    if (c < 0x20) return -1;
    if (c == 0x22) return i + 1;
    if (c != 0x5c) continue;
    c = at(text, ++i);
    if (c == 0x75) {
      for (let n = 0; n < 4; n++) if (!isHex(at(text, ++i))) return -1;
    } else if (c < 0 || !'"\\/bfnrt'.includes(String.fromCharCode(c))) {
      return -1;
    }
  }
}

function skipDigits(text: string, i: i32): i32 {
  const start = i;
  for (let c = at(text, i); c >= 0x30 && c <= 0x39; c = at(text, i)) i++;
  return i > start ? i : -1;
}

function skipNumber(text: string, i: i32): i32 {
  if (at(text, i) == 0x2d) i++;
  i = at(text, i) == 0x30 ? i + 1 : skipDigits(text, i);
  if (i >= 0 && at(text, i) == 0x2e) i = skipDigits(text, i + 1);
  if (i >= 0 && (at(text, i) | 0x20) == 0x65) {
    i++;
    if (at(text, i) == 0x2b || at(text, i) == 0x2d) i++;
    i = skipDigits(text, i);
  }
  return i;
}

/** Decodes what is between the quotes of a valid string. */
function unescape(inside: string): string {
  let out = "";
  let start = 0;
  for (let i = inside.indexOf("\\"); i >= 0; i = inside.indexOf("\\", start)) {
    out += inside.substring(start, i);
    const c = inside.charCodeAt(i + 1);
    start = i + 2;
    switch (c) {
      case 0x62: out += "\b"; break;
      case 0x66: out += "\f"; break;
      case 0x6e: out += "\n"; break;
      case 0x72: out += "\r"; break;
      case 0x74: out += "\t"; break;
      case 0x75:
        out += String.fromCharCode(i32.parse(inside.substr(start, 4), 16));
        start += 4;
        break;
      default: out += String.fromCharCode(c);
    }
  }
  return out + inside.substring(start);
}

/** Returns a string as JSON, so that data never becomes syntax. */
function quote(s: string): string {
  let out = '"';
  let start = 0;
  for (let i = 0; i < s.length; i++) {
    const c = s.charCodeAt(i);
    if (c >= 0x20 && c != 0x22 && c != 0x5c) continue;
    out += s.substring(start, i);
    out += c < 0x20 ? "\\u00" + (c >> 4).toString(16) + (c & 15).toString(16) : "\\" + String.fromCharCode(c);
    start = i + 1;
  }
  return out + s.substring(start) + '"';
}

/** A JSON value to write. */
export class Value {
  private constructor(readonly text: string) {}

  static string(s: string): Value { return new Value(quote(s)); }
  static integer(n: i64): Value { return new Value(n.toString()); }
  static bool(b: bool): Value { return new Value(b ? "true" : "false"); }
  static null(): Value { return new Value("null"); }
  /** A value that was read; null for no value. */
  static json(v: Json): Value { return new Value(v.exists ? v.text : "null"); }

  static array(all: Value[]): Value {
    let out = "[";
    for (let i = 0; i < all.length; i++) out += (i > 0 ? "," : "") + all[i].text;
    return new Value(out + "]");
  }

  /** An object: its members are added with `set`. */
  static object(): Value { return new Value("{}"); }

  /** Returns the object with one more member. */
  set(name: string, value: Value): Value {
    assert(this.text.startsWith("{"), "set of a value that is no object");
    const before = this.text.length > 2 ? this.text.substring(0, this.text.length - 1) + "," : "{";
    return new Value(before + quote(name) + ":" + value.text + "}");
  }
}

/** The event to handle, in the JSON format of CloudEvents 1.0. */
export function event(): Json {
  const bytes = new ArrayBuffer(eventSize());
  const length = eventRead(changetype<usize>(bytes), bytes.byteLength);
  return Json.parse(String.UTF8.decode(bytes.slice(0, length)));
}

let events: Value[] = [];
let replied: Value | null = null;

/** Publishes an event when the handler succeeds. */
export function publish(type: string, subject: string, data: Value): void {
  let e = Value.object().set("type", Value.string(type));
  if (subject.length > 0) e = e.set("subject", Value.string(subject));
  events.push(e.set("data", data));
}

/** Sets the reply that a synchronous caller gets. */
export function reply(value: Value): void { replied = value; }

/** How an attempt has failed; null is success. */
export class Failure {
  /** A failure that may be gone at the next attempt; with seconds, which is not made earlier than that. */
  constructor(readonly message: string, readonly retry: bool = true, readonly seconds: i64 = 0) {}
}

/** Runs the handler of the event and writes the result; returns what sallyport_handle has to. */
export function run(handler: () => Failure | null): i32 {
  const failure = handler();
  let result = Value.object();
  if (failure) {
    let e = Value.object().set("message", Value.string(failure.message));
    if (!failure.retry) e = e.set("retry", Value.bool(false));
    if (failure.seconds > 0) e = e.set("retry_after_seconds", Value.integer(failure.seconds));
    result = result.set("error", e);
  } else {
    const value = replied;
    if (value) result = result.set("reply", value);
    if (events.length > 0) result = result.set("events", Value.array(events));
  }
  const text = String.UTF8.encode(result.text);
  resultWrite(changetype<usize>(text), text.byteLength);
  return failure ? 1 : 0;
}
