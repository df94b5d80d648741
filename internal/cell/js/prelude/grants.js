// Grants: ctx.grants has a member for each grant of the function, with methods for its kind. A use is a promise; uses run
// beside each other. The host knows which function this is: a name that it does not know as a grant of the function reaches nothing.
(function (host, world) {
  "use strict";
  const { stringify, parse } = JSON;
  const { freeze, keys } = Object;
  const { bytesOf, wellFormed } = world;
  const NativePromise = Promise;
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

  // What each kind has, besides call: an object without a prototype, of the use of this grant.
  const kinds = {
    __proto__: null,
    invoke: (use) => ({ __proto__: null, invoke: (data) => use("invoke", { data }, undefined, valueOf) }),
    identity: (use) => ({ __proto__: null, token: () => use("token", {}, undefined, valueOf) }),
  };

  // call is what every grant has: it does what the kind calls op, and returns the value and the bytes of the answer.
  const member = (name, kind) => {
    const of = (op, request, body, finish) => use(name, op, request, body, finish);
    const call = (op, request, body) => of(op, request, body, valueAndBody);
    const made = kinds[kind]?.(of) ?? { __proto__: null };
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
