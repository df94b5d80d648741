// Grants: ctx.grants has a member for each grant of the function, with methods for its kind. A use is a promise; uses run
// beside each other. The host knows which function this is: a number that it does not know as a grant of the function reaches nothing.
// What can be done by the host, which is quicker than a script, is: it writes requests, keeps the promises, and settles them.
(function (host, world) {
  "use strict";
  const { stringify, parse } = JSON;
  const { freeze } = Object;
  const { bytesOf } = world;
  const NativePromise = Promise;
  const rejected = NativePromise.reject.bind(NativePromise);
  const NativeProxy = Proxy;
  const NativeBuffer = ArrayBuffer;
  const NativeBytes = Uint8Array;
  const { isView } = ArrayBuffer;
  const character = String.fromCharCode;
  const toBase64 = btoa;
  const fromBase64 = Uint8Array.fromBase64.bind(Uint8Array);
  world.rejected = rejected;

  // GrantError is the reason of a use that failed.
  class GrantError extends Error {
    constructor({ code, message, retry, retry_after_seconds }) {
      super(message);
      this.code = code;
      this.retry = retry;
      if (retry_after_seconds !== undefined) this.retryAfter = retry_after_seconds;
    }
  }
  world.define({ name: "GrantError" }, GrantError.prototype);
  world.refused = (error) => new GrantError(error);

  // unbegun is for the uses of which the host makes no promise.
  world.unbegun = () => rejected(new TypeError("a grant can be used while an event is handled, and not while the script is loaded"));
  const { unbegun } = world;

  // use returns a promise of what finish makes of the answer: nothing leaves its JSON value, a name takes that member of it, or the answer's bytes where there
  // is none, and a function, which has to be one that is kept here for ever, gets the value and a Uint8Array or undefined.
  const use = (grant, op, request, body, finish) => {
    try {
      return host.use(grant, op, stringify(request ?? {}) ?? "null", body === undefined ? undefined : bytesOf(body), finish) || unbegun();
    } catch (thrown) {
      return rejected(thrown);
    }
  };

  const valueAndBody = (value, body) => ({ value, body });

  // The members of a grant of kind sql are the statements of its manifest, which the host knows: a call of any name is asked for.
  const parameter = (value) => {
    if (value === undefined) return null;
    if (typeof value === "bigint") return `${value}`;
    if (value instanceof NativeBuffer || isView(value)) return { $bytes: base64Of(bytesOf(value)) };
    return value;
  };
  const parameters = (values) => {
    const list = [];
    for (let i = 0; i < values.length; i++) list[i] = parameter(values[i]);
    return list;
  };
  const base64Of = (bytes) => {
    let text = "";
    for (let i = 0; i < bytes.length; i++) text += character(bytes[i]);
    return toBase64(text);
  };
  const sql = (use, _, grant) => {
    const statements = { __proto__: null }; // those that were used
    const statement = (query) => (...values) =>
      host.query(grant, query, values, values.length) || use("query", { query, params: parameters(values) });
    return new NativeProxy({
      __proto__: null,
      transaction: (statements) => {
        const list = [];
        for (let i = 0; i < statements.length; i++) {
          const { query, params } = statements[i];
          list[i] = { query, params: parameters(params ?? []) };
        }
        return use("transaction", { statements: list });
      },
    }, {
      __proto__: null,
      get: (target, name) => {
        // A promise is what has a then: a grant is none.
        if (typeof name !== "string" || name === "then" || name in target) return target[name];
        return statements[name] ??= statement(name);
      },
    });
  };

  // A value of kind kv is JSON, or bytes: an entry without a JSON value has bytes, of which there may be none.
  const entryOf = (value, body) => {
    if (value !== null && !("value" in value)) value.value = body ?? new NativeBytes();
    return value;
  };
  const kv = (use, _, grant) => {
    const get = (key, finish) => (typeof key === "string" ? host.get(grant, key, finish) : undefined) || use("get", { key }, undefined, finish);
    const store = (op, request, value, finish) => {
      const binary = value instanceof NativeBuffer || isView(value);
      if (!binary) request.value = value === undefined ? null : value;
      return use(op, request, binary ? value : undefined, finish);
    };
    return {
      __proto__: null,
      get: (key) => get(key, "value"),
      entry: (key) => get(key, entryOf),
      set: (key, value, { ttl } = {}) => store("set", { key, ttl }, value, "version"),
      compareAndSet: (key, version, value, { ttl } = {}) => store("compareAndSet", { key, version, ttl }, value),
      delete: (key, { version } = {}) => use("delete", { key, version }, undefined, "deleted"),
      increment: (key, by, { ttl } = {}) => use("increment", { key, by, ttl }, undefined, "value"),
      list: ({ prefix, after, limit } = {}) => use("list", { prefix, after, limit }),
    };
  };

  // A secret is a text, or bytes when it is none.
  const secretOf = ({ value = "", base64 }) => base64 === undefined ? value : fromBase64(base64);

  // What each kind has, besides call: an object without a prototype, of the use of this grant, of what is to be known about it, and of its number.
  const kinds = {
    __proto__: null,
    invoke: (use) => ({ __proto__: null, invoke: (data) => use("invoke", { data }) }),
    secret: (use) => ({ __proto__: null, value: () => use("value", {}, undefined, secretOf) }),
    identity: (use) => ({ __proto__: null, token: () => use("token", {}) }),
    sql,
    kv,
  };

  world.grantKinds = kinds; // other parts add theirs

  // call is what every grant has: it does what the kind calls op, and returns the value and the bytes of the answer.
  const member = (grant, kind, about) => {
    const of = (op, request, body, finish) => use(grant, op, request, body, finish);
    const made = kinds[kind]?.(of, about, grant) ?? { __proto__: null };
    made.kind = kind;
    made.call = (op, request, body) => of(typeof op === "string" ? op : `${op}`, request, body, valueAndBody);
    return freeze(made);
  };

  const none = freeze({ __proto__: null });
  let members = none;
  // loadGrants uses nothing that the script, which was evaluated by then, can have replaced.
  world.loadGrants = () => {
    const text = host.grants();
    if (text === "") return;
    const list = parse(text);
    const made = { __proto__: null };
    for (let i = 0; i < list.length; i++) made[list[i][0]] = member(i, list[i][1], list[i][2]);
    members = freeze(made);
  };
  world.grants = () => members;
})
