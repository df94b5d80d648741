// One event: how a handler is called, and what becomes of what it returns or throws.
(function (host, world) {
  "use strict";
  const { stringify } = JSON;
  const { isArray } = Array;
  const { freeze } = Object;
  const { min } = Math;
  const { isView } = ArrayBuffer;
  const toString = String;
  const { loadGrants, grants, textOf, forgetTime, forgetSeed, wellFormed, slice, bytesOf, uncurried } = world;
  const NativePromise = Promise;
  const Buffer = ArrayBuffer;
  const then = uncurried(NativePromise.prototype.then);
  const resolve = NativePromise.resolve.bind(NativePromise);
  const toBase64 = uncurried(Uint8Array.prototype.toBase64);
  const fromBase64 = Uint8Array.fromBase64.bind(Uint8Array);
  const mostText = 16384; // of a message or a stack, in UTF-16 units: the host keeps fewer

  class Fail extends Error {
    constructor(message, options) {
      super(message, options);
      if (options?.retry !== undefined) this.retry = options.retry;
      if (options?.retryAfter !== undefined) this.retryAfter = options.retryAfter;
    }
  }
  world.define({ name: "Fail" }, Fail.prototype);

  // failureOf describes whatever was thrown, which may be hostile: a getter that throws, a proxy.
  function failureOf(thrown) {
    const failure = { __proto__: null, message: "the function threw a value without a message" };
    try {
      if (typeof thrown !== "object" || thrown === null) {
        failure.message = toString(thrown);
        return failure;
      }
      const { name, message, stack, retry, retryAfter } = thrown;
      failure.message = typeof message === "string" ? message : textOf(thrown);
      if (typeof name === "string" && name !== "" && name !== "Error" && name !== "Fail") {
        failure.message = name + ": " + failure.message;
      }
      if (typeof stack === "string") failure.stack = stack;
      if (typeof retry === "boolean") failure.retry = retry;
      if (typeof retryAfter === "number" && retryAfter > 0) failure.retry_after_seconds = min(retryAfter, 1e9);
      if (name === "GrantError") failure.message += " [" + toString(thrown.code) + "]"; // as the other languages have it
    } catch {
      // What could be read of it must do.
    }
    // The host takes no lone surrogates.
    failure.message = wellFormed(slice(failure.message, 0, mostText));
    if (failure.stack !== undefined) failure.stack = wellFormed(slice(failure.stack, 0, mostText));
    return failure;
  }

  const failed = (thrown) => '{"error":' + stringify(failureOf(thrown)) + "}";

  let handler;
  let first = null; // of a list of those that were published
  let last = null;

  // add is not an array's push, which a script can replace, as it can what an array has at an index.
  const add = (event) => {
    const entry = { __proto__: null, event, next: null };
    if (last === null) first = entry;
    else last.next = entry;
    last = entry;
  };

  function wireEvent(event) {
    if (typeof event !== "object" || event === null || typeof event.type !== "string") {
      throw new TypeError("an event to publish needs a type: return an array of { type, data } to publish events, and any other value to reply");
    }
    const { type, id, subject, data, datacontenttype } = event;
    const wire = { __proto__: null, type, id, subject, datacontenttype };
    if (data instanceof Buffer || isView(data)) wire.data_base64 = toBase64(bytesOf(data));
    else wire.data = data;
    return wire;
  }

  function publish(type, data, options) {
    add(wireEvent({ ...options, type, data }));
  }

  // resultOf returns the JSON of a result: { reply, events }.
  function resultOf(value) {
    let members = "";
    if (isArray(value)) {
      for (let i = 0; i < value.length; i++) add(wireEvent(value[i]));
    } else if (value !== undefined) {
      if (typeof value === "function" || typeof value === "symbol") throw new TypeError(`a ${typeof value} cannot be a reply`);
      const reply = stringify(value);
      if (reply !== undefined) members = '"reply":' + reply;
    }
    if (first === null) return "{" + members + "}";
    let events = "";
    for (let entry = first; entry !== null; entry = entry.next) events += (events === "" ? "" : ",") + stringify(entry.event);
    return "{" + members + (members === "" ? "" : ",") + '"events":[' + events + "]}";
  }

  // ctx is one object for every event: an instance sees one event only. What is rarely used is
  // asked for when it is.
  const ctx = freeze({
    __proto__: null,
    get attempt() { return host.attempt(); },
    get deadline() { return Number(host.deadline()); },
    log: world.log,
    publish,
    get grants() { return grants(); },
    Fail,
  });

  const fail = (thrown) => host.done(failed(thrown));
  const succeed = (value) => {
    let result;
    try {
      result = resultOf(value);
    } catch (thrown) {
      return fail(thrown);
    }
    host.done(result);
  };

  return [
    // use takes the script's namespace object and returns whether there is a handler. What comes after it is
    // an event's.
    (namespace) => {
      forgetSeed();
      forgetTime();
      loadGrants();
      handler = namespace.default;
      return typeof handler === "function" ? 1 : 0;
    },
    // handle begins to handle one event. It returns the result, or nothing: the end is a call of host.done
    // then.
    (event) => {
      try {
        if (typeof event.data_base64 === "string") {
          event.data = fromBase64(event.data_base64);
          delete event.data_base64;
        }
        const value = handler(event, ctx);
        if (typeof value !== "object" || value === null || typeof value.then !== "function") return resultOf(value);
        then(value instanceof NativePromise ? value : resolve(value), succeed, fail);
      } catch (thrown) {
        return failed(thrown);
      }
    },
    world.runTimer,
    // describe returns the JSON of whatever was thrown outside handle.
    (thrown) => stringify(failureOf(thrown)),
    world.refused,
    world.respond,
  ];
})
