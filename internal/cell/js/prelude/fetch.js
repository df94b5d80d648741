// fetch, Headers and Response, after the Fetch Standard, for what the function's http grants cover. A URL is compared here
// to find the grant that is meant; what may be reached is decided by the host, which reads the URL again.
(function (host, world) {
  "use strict";
  const { text, bytesOf, uncurried, GrantError } = world;
  const split = uncurried(String.prototype.split);
  const startsWith = uncurried(String.prototype.startsWith);
  const endsWith = uncurried(String.prototype.endsWith);
  const indexOf = uncurried(String.prototype.indexOf);
  const slice = uncurried(String.prototype.slice);
  const upper = uncurried(String.prototype.toUpperCase);
  const lower = uncurried(String.prototype.toLowerCase);
  const trim = uncurried(String.prototype.trim);
  const { stringify, parse } = JSON;
  const { isView } = ArrayBuffer;
  const Address = URL;
  const Query = URLSearchParams;
  const Decoder = TextDecoder;
  const Encoder = TextEncoder;
  const Signal = AbortSignal;
  const NativePromise = Promise;
  const token = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;
  const matches = uncurried(RegExp.prototype.test);

  const nameOf = (value) => {
    const name = lower(text(value));
    if (!matches(token, name)) throw new TypeError("a header's name is wanted");
    return name;
  };

  class Headers {
    #list = []; // [name, value], names in lower case

    constructor(init = undefined) {
      if (init === undefined || init === null) return;
      if (typeof init !== "object") throw new TypeError("headers are an object, or a list of names and values");
      const pairs = typeof init[Symbol.iterator] === "function" ? init : Object.entries(init);
      for (const pair of pairs) {
        const [name, value, ...more] = pair;
        if (value === undefined || more.length > 0) throw new TypeError("a header is a name and a value");
        this.append(name, value);
      }
    }

    append(name, value) { this.#list.push([nameOf(name), trim(text(value))]); }
    delete(name) {
      name = nameOf(name);
      this.#list = this.#list.filter(([n]) => n !== name);
    }
    get(name) {
      name = nameOf(name);
      const values = this.#list.filter(([n]) => n === name).map(([, v]) => v);
      return values.length === 0 ? null : values.join(", ");
    }
    getSetCookie() { return this.#list.filter(([n]) => n === "set-cookie").map(([, v]) => v); }
    has(name) {
      name = nameOf(name);
      return this.#list.some(([n]) => n === name);
    }
    set(name, value) {
      this.delete(name);
      this.append(name, value);
    }
    forEach(callback, self = undefined) {
      for (const [name, value] of this) callback.call(self, value, name, this);
    }
    *entries() {
      const names = [...new Set(this.#list.map(([n]) => n))].sort();
      for (const name of names) yield [name, this.get(name)];
    }
    *keys() { for (const [name] of this) yield name; }
    *values() { for (const [, value] of this) yield value; }
  }
  world.define({ [Symbol.iterator]: Headers.prototype.entries }, Headers.prototype);

  // bodyOf returns the bytes of a body and the type that it has by itself.
  function bodyOf(body) {
    if (body === undefined || body === null) return [undefined, undefined];
    if (body instanceof Query) return [new Encoder().encode(`${body}`), "application/x-www-form-urlencoded;charset=UTF-8"];
    if (isView(body) || body instanceof ArrayBuffer) return [bytesOf(body).slice(), undefined];
    return [new Encoder().encode(text(body)), "text/plain;charset=UTF-8"];
  }

  const nullBody = [101, 204, 205, 304];
  const made = Symbol("a Response that came from outside");

  class Response {
    #status;
    #statusText = "";
    #headers;
    #body; // the bytes, or undefined
    #used = false;
    #url = "";
    #redirected = false;

    constructor(body = undefined, init = {}, from = undefined) {
      const { status = 200, statusText = "", headers } = Object(init);
      if (from === made) {
        [this.#status, this.#headers, this.#body] = [status, headers, body];
        [this.#url, this.#redirected] = [init.url, init.redirected];
        return;
      }
      this.#status = Number(status);
      if (!(this.#status >= 200 && this.#status <= 599)) throw new RangeError("a status is 200 to 599");
      this.#statusText = text(statusText);
      this.#headers = new Headers(headers);
      const [bytes, type] = bodyOf(body);
      if (bytes !== undefined && nullBody.includes(this.#status)) throw new TypeError(`a response with the status ${this.#status} has no body`);
      this.#body = bytes;
      if (type !== undefined && !this.#headers.has("content-type")) this.#headers.set("content-type", type);
    }

    static json(data, init = {}) {
      const headers = new Headers(init?.headers);
      if (!headers.has("content-type")) headers.set("content-type", "application/json");
      return new Response(stringify(data), { ...init, headers });
    }
    static error() { throw new TypeError("there is no use for a network error here: throw an exception"); }

    get type() { return this.#url === "" ? "default" : "basic"; }
    get url() { return this.#url; }
    get redirected() { return this.#redirected; }
    get status() { return this.#status; }
    get ok() { return this.#status >= 200 && this.#status <= 299; }
    get statusText() { return this.#statusText; }
    get headers() { return this.#headers; }
    get body() {
      if (this.#body === undefined) return null;
      throw new TypeError("bodies are not streamed here; use text(), json(), bytes() or arrayBuffer()");
    }
    get bodyUsed() { return this.#used; }

    #take() {
      if (this.#used) throw new TypeError("the body was read already");
      if (this.#body !== undefined) this.#used = true;
      return this.#body ?? new Uint8Array();
    }
    async bytes() { return this.#take(); }
    async arrayBuffer() {
      const bytes = this.#take();
      return bytes.byteLength === bytes.buffer.byteLength ? bytes.buffer : bytes.slice().buffer;
    }
    async text() { return new Decoder().decode(this.#take()); }
    async json() { return parse(new Decoder().decode(this.#take())); }
    clone() {
      if (this.#used) throw new TypeError("the body was read already");
      return new Response(this.#body?.slice(), { status: this.#status, headers: new Headers(this.#headers), url: this.#url, redirected: this.#redirected }, made);
    }
  }

  // answer makes a Response of what the host answers.
  const answer = (asked) => (value, body) => {
    const { status, headers, url } = value;
    const bytes = nullBody.includes(status) ? undefined : (body ?? new Uint8Array());
    return new Response(bytes, { status, headers: new Headers(headers), url, redirected: asked !== undefined && url !== asked }, made);
  };

  // aborting rejects when the signal aborts before the promise settles.
  const aborting = (signal, begin) => {
    if (signal === undefined || signal === null) return begin();
    if (!(signal instanceof Signal)) throw new TypeError("signal must be an AbortSignal");
    signal.throwIfAborted();
    return new NativePromise((settle, fail) => {
      signal.addEventListener("abort", () => fail(signal.reason), { once: true });
      begin().then(settle, fail);
    });
  };

  // send uses a grant. what has url, or values and query.
  const send = (use, what, init, asked) => {
    const { method, headers: given, body, signal } = Object(init);
    const headers = new Headers(given);
    const [bytes, type] = bodyOf(body);
    if (type !== undefined && !headers.has("content-type")) headers.set("content-type", type);
    if (method !== undefined) what.method = text(method);
    what.headers = [...headers];
    return aborting(signal, () => use("fetch", what, bytes, answer(asked)));
  };

  // template reads "GET POST https://host/a/{b}", which the host made of the grant.
  const template = (about) => {
    const words = split(about, " ");
    const url = words.pop();
    const [scheme, rest] = split(url, "://");
    const parts = split(rest, "/");
    const authority = parts.shift();
    const fixed = scheme === "https" ? ":443" : ":80";
    const origin = `${scheme}://${endsWith(authority, fixed) ? slice(authority, 0, -fixed.length) : authority}`;
    const segments = (parts.length === 0 ? [""] : parts).map((part) => {
      const at = indexOf(part, "{");
      if (at < 0) return { before: part };
      const end = indexOf(part, "}");
      return { before: slice(part, 0, at), after: slice(part, end + 1), rest: endsWith(slice(part, at, end), "...") };
    });
    return { methods: words, origin, segments };
  };

  const covers = ({ methods, origin, segments }, method, href) => {
    if (!methods.includes(method) || !startsWith(href, origin)) return false;
    const path = split(split(slice(href, origin.length), "#")[0], "?")[0];
    if (!startsWith(path, "/")) return false;
    const parts = split(slice(path, 1), "/");
    for (let i = 0; i < segments.length; i++) {
      const { before, after, rest } = segments[i];
      const part = parts[i];
      if (part === undefined) return false;
      if (rest) return part !== "";
      if (after === undefined) {
        if (part !== before) return false;
      } else if (part.length <= before.length + after.length || !startsWith(part, before) || !endsWith(part, after)) {
        return false;
      }
    }
    return parts.length === segments.length;
  };

  // Those of the function, filled when its grants are loaded, before the script can use one.
  const grants = [];

  world.grantKinds.http = (use, about) => {
    grants.push({ use, template: template(about) });
    return {
      __proto__: null,
      fetch: (init) => {
        const { values, query } = Object(init);
        return send(use, { values, query: query instanceof Query ? [...query] : query }, init);
      },
    };
  };

  async function fetch(input, init = undefined) {
    if (arguments.length === 0) throw new TypeError("fetch needs a URL");
    const url = new Address(input);
    if (url.username !== "" || url.password !== "") throw new TypeError("a URL for fetch has no credentials; the grant's are applied outside of the function");
    url.hash = "";
    const method = upper(text(Object(init).method ?? "GET"));
    for (const { use, template } of grants) {
      if (covers(template, method, url.href)) return send(use, { url: url.href }, { ...init, method }, url.href);
    }
    throw new GrantError({
      code: "fetch.not_covered", retry: false,
      message: `no http grant of this function covers ${method} ${url.origin}${url.pathname}; a grant in app.toml would be http = "${url.origin}${url.pathname}", methods = ["${method}"]`,
    });
  }

  world.expose(Headers);
  world.expose(Response);
  world.define({ fetch });
})
