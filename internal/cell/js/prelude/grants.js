// Grants: ctx.grants has a member for each grant of the function, with methods for its kind. A use is a promise; uses run
// beside each other. The host knows which function this is: a name that it does not know as a grant of the function reaches nothing.
(function (host, world) {
  "use strict";
  const { stringify, parse } = JSON;
  const { freeze, keys } = Object;
  const { bytesOf, wellFormed, slice, uncurried } = world;
  const indexOf = uncurried(String.prototype.indexOf);
  const NativePromise = Promise;
  const resolve = NativePromise.resolve.bind(NativePromise);
  const NativeProxy = Proxy;
  const NativeBuffer = ArrayBuffer;
  const NativeBytes = Uint8Array;
  const { isView } = ArrayBuffer;
  const character = String.fromCharCode;
  const toBase64 = btoa;
  const fromBase64 = Uint8Array.fromBase64.bind(Uint8Array);
  const begun = { __proto__: null }; // by number: what settles the promise

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
  world.GrantError = GrantError;

  // use returns a promise of what finish makes of the answer: a JSON value, and a Uint8Array or undefined.
  const use = (grant, op, request, body, finish) => new NativePromise((settle, fail) => {
    const text = wellFormed(stringify(request ?? {}));
    const number = host.use(grant, wellFormed(op), text, body === undefined ? undefined : bytesOf(body));
    if (number === 0) throw new TypeError("a grant can be used while an event is handled, and not while the script is loaded");
    begun[number] = { __proto__: null, settle, fail, finish };
  });

  // begin returns the promise of a use that is begun.
  const begin = (number, finish) => new NativePromise((settle, fail) => {
    if (number === 0) throw new TypeError("a grant can be used while an event is handled, and not while the script is loaded");
    begun[number] = { __proto__: null, settle, fail, finish };
  });

  // get is the use "get" of a key. Most answers are there at once, and then nothing waits.
  const get = (grant, key, finish) => {
    const got = typeof key === "string" ? host.get(grant, key) : undefined;
    if (got === undefined) return use(grant, "get", { key }, undefined, finish);
    return typeof got === "number" ? begin(got, finish) : resolve(finish(got));
  };

  // answered settles the use of a number, which is negative when it failed.
  world.answered = (number, text, body) => {
    const failed = number < 0;
    const of = failed ? -number : number;
    const { settle, fail, finish } = begun[of];
    delete begun[of];
    try {
      const value = text === "" ? null : parse(text);
      if (failed) fail(new GrantError(value));
      else settle(finish(value, body));
    } catch (thrown) {
      fail(thrown);
    }
  };

  const valueOf = (value) => value;
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
  const sql = (use) => new NativeProxy({
    __proto__: null,
    transaction: (statements) => {
      const list = [];
      for (let i = 0; i < statements.length; i++) {
        const { query, params } = statements[i];
        list[i] = { query, params: parameters(params ?? []) };
      }
      return use("transaction", { statements: list }, undefined, valueOf);
    },
  }, {
    __proto__: null,
    get: (target, name) => {
      // A promise is what has a then: a grant is none.
      if (typeof name !== "string" || name === "then" || name in target) return target[name];
      return (...values) => use("query", { query: name, params: parameters(values) }, undefined, valueOf);
    },
  });

  // A value of kind kv is JSON, or bytes: an entry without a JSON value has bytes, of which there may be none.
  const entryOf = (value, body) => {
    if (value !== null && !("value" in value)) value.value = body ?? new NativeBytes();
    return value;
  };
  const valueOfEntry = (value, body) => entryOf(value, body)?.value ?? null;
  const kv = (use, _, grant) => {
    const store = (op, request, value, finish) => {
      const binary = value instanceof NativeBuffer || isView(value);
      if (!binary) request.value = value === undefined ? null : value;
      return use(op, request, binary ? value : undefined, finish);
    };
    return {
      __proto__: null,
      get: (key) => get(grant, key, valueOfEntry),
      entry: (key) => get(grant, key, entryOf),
      set: (key, value, { ttl } = {}) => store("set", { key, ttl }, value, ({ version }) => version),
      compareAndSet: (key, version, value, { ttl } = {}) => store("compareAndSet", { key, version, ttl }, value, valueOf),
      delete: (key, { version } = {}) => use("delete", { key, version }, undefined, ({ deleted }) => deleted),
      increment: (key, by, { ttl } = {}) => use("increment", { key, by, ttl }, undefined, ({ value }) => value),
      list: ({ prefix, after, limit } = {}) => use("list", { prefix, after, limit }, undefined, valueOf),
    };
  };

  // A secret is a text, or bytes when it is none.
  const secretOf = ({ value = "", base64 }) => base64 === undefined ? value : fromBase64(base64);

  // What each kind has, besides call: an object without a prototype, of the use of this grant.
  const kinds = {
    __proto__: null,
    invoke: (use) => ({ __proto__: null, invoke: (data) => use("invoke", { data }, undefined, valueOf) }),
    secret: (use) => ({ __proto__: null, value: () => use("value", {}, undefined, secretOf) }),
    identity: (use) => ({ __proto__: null, token: () => use("token", {}, undefined, valueOf) }),
    sql,
    kv,
  };

  world.grantKinds = kinds; // other parts add theirs

  // call is what every grant has: it does what the kind calls op, and returns the value and the bytes of the answer.
  // about is the kind, and behind a space what the kind's own part has to know.
  const member = (name, about) => {
    const space = indexOf(about, " ");
    const kind = space < 0 ? about : slice(about, 0, space);
    const of = (op, request, body, finish) => use(name, op, request, body, finish);
    const call = (op, request, body) => of(op, request, body, valueAndBody);
    const made = kinds[kind]?.(of, space < 0 ? "" : slice(about, space + 1), name) ?? { __proto__: null };
    made.kind = kind;
    made.call = call;
    return freeze(made);
  };

  const none = freeze({ __proto__: null });
  let members = none;
  // loadGrants uses nothing that the script, which was evaluated by then, can have replaced.
  world.loadGrants = () => {
    const text = host.grants();
    if (text === "") return;
    const names = parse(text);
    const list = keys(names);
    const made = { __proto__: null };
    for (let i = 0; i < list.length; i++) made[list[i]] = member(list[i], names[list[i]]);
    members = freeze(made);
  };
  world.grants = () => members;
})
