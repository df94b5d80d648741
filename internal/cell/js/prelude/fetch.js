// fetch, Headers, Request and Response, after the Fetch Standard, for what the function's http grants cover. The host finds the grant that covers
// a URL, writes the request, and keeps the headers of an answer as a text until somebody reads them.
(function (host, world) {
  "use strict";
  const { text, bytesOf, uncurried, refused, rejected, unbegun } = world;
  const trim = uncurried(String.prototype.trim);
  const upper = uncurried(String.prototype.toUpperCase);
  const { stringify, parse } = JSON;
  const { keys, getOwnPropertyDescriptor, defineProperty } = Object;
  const { isView } = ArrayBuffer;
  const { iterator } = Symbol;
  const NativeBuffer = ArrayBuffer;
  const Bytes = Uint8Array;
  const Address = URL;
  const Query = URLSearchParams;
  const Decoder = TextDecoder;
  const Encoder = TextEncoder;
  const Signal = AbortSignal;
  const Controller = AbortController;
  const NativePromise = Promise;
  const resolved = NativePromise.resolve.bind(NativePromise);
  const then = uncurried(NativePromise.prototype.then);

  // put adds a header to a list of names, in lower case, and values.
  const put = (list, name, value) => {
    value = trim(text(value));
    name = host.header(text(name), value);
    if (name === undefined) throw new TypeError("a header has a name of letters, digits and hyphens, and a value in one line");
    list[list.length] = name;
    list[list.length] = value;
  };

  const nameOf = (value) => {
    const name = host.header(text(value), "");
    if (name === undefined) throw new TypeError("a header's name is wanted");
    return name;
  };

  let listOf; // the list of a Headers, or undefined of anything else

  class Headers {
    #list = []; // name, value, name, value

    constructor(init = undefined) {
      if (init === undefined || init === null) return;
      if (typeof init !== "object") throw new TypeError("headers are an object, or a list of names and values");
      const list = this.#list;
      const other = listOf(init);
      if (other !== undefined) {
        for (let i = 0; i < other.length; i++) list[i] = other[i];
      } else if (typeof init[iterator] === "function") {
        for (const pair of init) {
          const both = [...pair];
          if (both.length !== 2) throw new TypeError("a header is a name and a value");
          put(list, both[0], both[1]);
        }
      } else {
        const names = keys(init);
        for (let i = 0; i < names.length; i++) {
          const value = init[names[i]];
          if (value === undefined) throw new TypeError("a header is a name and a value");
          put(list, names[i], value);
        }
      }
    }

    static { listOf = (value) => #list in value ? value.#list : undefined; }

    append(name, value) { put(this.#list, name, value); }
    delete(name) {
      name = nameOf(name);
      const left = [];
      const list = this.#list;
      for (let i = 0; i < list.length; i += 2) if (list[i] !== name) left.push(list[i], list[i + 1]);
      this.#list = left;
    }
    get(name) {
      name = nameOf(name);
      const list = this.#list;
      let values = null;
      for (let i = 0; i < list.length; i += 2) if (list[i] === name) values = values === null ? list[i + 1] : values + ", " + list[i + 1];
      return values;
    }
    getSetCookie() { return this.#list.filter((_, i, list) => i % 2 === 1 && list[i - 1] === "set-cookie"); }
    has(name) { return this.get(name) !== null; }
    set(name, value) {
      this.delete(name);
      this.append(name, value);
    }
    forEach(callback, self = undefined) {
      for (const [name, value] of this) callback.call(self, value, name, this);
    }
    *entries() {
      const names = [...new Set(this.#list.filter((_, i) => i % 2 === 0))].sort();
      for (const name of names) {
        if (name === "set-cookie") for (const value of this.getSetCookie()) yield [name, value];
        else yield [name, this.get(name)];
      }
    }
    *keys() { for (const [name] of this) yield name; }
    *values() { for (const [, value] of this) yield value; }
  }
  world.define({ [iterator]: Headers.prototype.entries }, Headers.prototype);

  let lines = 0; // how many headers the last text of flat has

  // flat writes headers for the host: of each its name and its value, a line each. Of an object with texts it looks at nothing, which the host does.
  const flat = (headers) => {
    lines = 0;
    if (headers === undefined || headers === null) return undefined;
    let all = "";
    if (typeof headers === "object" && listOf(headers) === undefined && headers[iterator] === undefined) {
      const names = keys(headers);
      for (let i = 0; i < names.length; i++) {
        const value = headers[names[i]];
        if (typeof value !== "string") return flat(new Headers(headers));
        all += names[i] + "\n" + value + "\n";
      }
      lines = names.length;
      return all;
    }
    const list = listOf(Object(headers)) ?? listOf(new Headers(headers));
    for (let i = 0; i < list.length; i++) all += list[i] + "\n";
    lines = list.length / 2;
    return all;
  };

  const plainText = "text/plain;charset=UTF-8";
  const form = "application/x-www-form-urlencoded;charset=UTF-8";

  // typeOf returns the type that a body has by itself, and contentOf what the host takes for it: a text, or bytes.
  const typeOf = (body) => {
    if (typeof body === "string") return plainText;
    if (body === undefined || body === null || isView(body) || body instanceof NativeBuffer) return undefined;
    return body instanceof Query ? form : plainText;
  };
  const contentOf = (body) => {
    if (typeof body === "string" || body === undefined || body === null) return body ?? undefined;
    return isView(body) || body instanceof NativeBuffer ? bytesOf(body) : `${body}`;
  };

  // copied returns the bytes of a body, which are nobody else's, or undefined.
  const copied = (body) => {
    const content = contentOf(body);
    return typeof content === "string" ? new Encoder().encode(content) : content?.slice();
  };

  const isNull = (status) => status === 204 || status === 205 || status === 304 || status === 101;
  const nothing = new Bytes(0);
  const made = Symbol("a Response that came from outside");
  const decoded = (bytes) => new Decoder().decode(bytes);

  // take returns the bytes of a body that is read now.
  const take = (of) => {
    if (of.used) throw new TypeError("the body was read already");
    if (of.body === undefined) return nothing;
    of.used = true;
    return of.body;
  };

  // open reads the headers and the URL of an answer, when they are asked for.
  const open = (of) => {
    if (of.head !== undefined) {
      const { headers, url } = parse(of.head);
      of.head = undefined;
      of.headers = new Headers(headers);
      of.url = url;
      of.redirected = of.asked !== undefined && url !== of.asked;
    }
    return of;
  };

  let stateOf; // what an object of Request or of Response holds
  let requestOf; // that of a Request, or undefined of anything else

  class Response {
    #of;

    constructor(body = undefined, init = undefined, from = undefined) {
      if (from === made) {
        this.#of = body;
        return;
      }
      const { status = 200, statusText = "", headers } = Object(init);
      const number = Number(status);
      if (!(number >= 200 && number <= 599)) throw new RangeError("a status is 200 to 599");
      const of = { __proto__: null, status: number, head: undefined, body: copied(body), used: false, statusText: text(statusText), headers: new Headers(headers), url: "", redirected: false };
      if (of.body !== undefined && isNull(number)) throw new TypeError(`a response with the status ${number} has no body`);
      const type = typeOf(body);
      if (type !== undefined && !of.headers.has("content-type")) of.headers.set("content-type", type);
      this.#of = of;
    }

    static { stateOf = (value) => #of in value ? value.#of : requestOf(value); }

    static json(data, init = {}) {
      const headers = new Headers(init?.headers);
      if (!headers.has("content-type")) headers.set("content-type", "application/json");
      const body = stringify(data);
      if (body === undefined) throw new TypeError("the data has no JSON");
      return new Response(body, { ...init, headers });
    }
    static error() { throw new TypeError("there is no use for a network error here: throw an exception"); }

    get type() { return open(this.#of).url === "" ? "default" : "basic"; }
    get url() { return open(this.#of).url; }
    get redirected() { return open(this.#of).redirected; }
    get status() { return this.#of.status; }
    get ok() { return this.#of.status >= 200 && this.#of.status <= 299; }
    get statusText() { return this.#of.statusText ?? ""; }
    get headers() { return open(this.#of).headers; }
    get body() {
      if (stateOf(this).body === undefined) return null;
      throw new TypeError("bodies are not streamed here; use text(), json(), bytes() or arrayBuffer()");
    }
    get bodyUsed() { return stateOf(this).used; }

    // These reject, and throw nothing. An async function would take longer.
    text() {
      try {
        const bytes = take(stateOf(this));
        return host.text(bytes) ?? resolved(decoded(bytes));
      } catch (thrown) {
        return rejected(thrown);
      }
    }
    json() {
      try {
        const bytes = take(stateOf(this));
        const value = host.json(bytes);
        return resolved(value === undefined ? parse(decoded(bytes)) : value);
      } catch (thrown) {
        return rejected(thrown);
      }
    }
    async bytes() {
      const bytes = take(stateOf(this));
      return bytes === nothing ? new Bytes() : bytes;
    }
    async arrayBuffer() {
      const bytes = take(stateOf(this));
      return bytes !== nothing && bytes.byteLength === bytes.buffer.byteLength ? bytes.buffer : bytes.slice().buffer;
    }
    clone() {
      const of = open(this.#of);
      if (of.used) throw new TypeError("the body was read already");
      return new Response({ ...of, body: of.body?.slice(), headers: new Headers(of.headers) }, undefined, made);
    }
  }

  // respond makes a Response of what the host answers: its status, the JSON of all there is beside the body, and the URL that fetch was called with.
  world.respond = (status, head, asked, body) =>
    new Response({ __proto__: null, status, head, asked, body: body === undefined && !isNull(status) ? new Bytes() : body, used: false }, undefined, made);

  const bodiless = (method) => method === "GET" || method === "HEAD";

  class Request {
    #of;

    constructor(input, init = undefined) {
      const from = typeof input === "object" && input !== null ? requestOf(input) : undefined;
      const options = Object(init);
      const { method = from?.method ?? "GET", headers = from?.headers, body, signal = from?.signal } = options;
      const url = from?.url ?? addressOf(input).href;
      const of = { __proto__: null, url, method: upper(text(method)), headers: new Headers(headers), body: copied(body), used: false, signal: signal ?? undefined };
      if (host.header(of.method, "") === undefined) throw new TypeError("a method is a word");
      if (of.signal !== undefined && !(of.signal instanceof Signal)) throw new TypeError("signal must be an AbortSignal");
      if (bodiless(of.method) && (of.body !== undefined || from?.body !== undefined)) throw new TypeError(`a ${of.method} request has no body`);
      const type = typeOf(body);
      if (type !== undefined && !of.headers.has("content-type")) of.headers.set("content-type", type);
      if (of.body === undefined && from?.body !== undefined) of.body = take(from);
      this.#of = of;
    }

    static {
      requestOf = (value) => #of in value ? value.#of : undefined;
    }

    get url() { return this.#of.url; }
    get method() { return this.#of.method; }
    get headers() { return this.#of.headers; }
    get signal() { return this.#of.signal ??= new Controller().signal; }
    clone() {
      const { url, method, headers, body, used, signal } = this.#of;
      if (used) throw new TypeError("the body was read already");
      return new Request(url, { method, headers, body: body?.slice(), signal });
    }
  }
  for (const name of ["body", "bodyUsed", "text", "json", "bytes", "arrayBuffer"]) {
    defineProperty(Request.prototype, name, getOwnPropertyDescriptor(Response.prototype, name));
  }

  const addressOf = (input) => {
    const url = new Address(input);
    if (url.username !== "" || url.password !== "") throw new TypeError("a URL for fetch has no credentials; the grant's are applied outside of the function");
    return url;
  };

  // aborting rejects when the signal aborts before the promise settles.
  const aborting = (signal, promise) => new NativePromise((settle, fail) => {
    const abort = () => fail(signal.reason);
    const over = () => signal.removeEventListener("abort", abort);
    signal.addEventListener("abort", abort, { once: true });
    then(promise, (value) => { over(); settle(value); }, (reason) => { over(); fail(reason); });
  });

  const ofURL = -1; // stands for the grant that covers a URL

  // send uses a grant: of a URL, or with the JSON of values and of a query.
  const send = (grant, target, query, init) => {
    let method, headers, body, signal;
    if (init !== undefined && init !== null) ({ method, headers, body, signal } = init);
    if (signal !== undefined && signal !== null) {
      if (!(signal instanceof Signal)) throw new TypeError("signal must be an AbortSignal");
      signal.throwIfAborted();
    }
    if (method !== undefined && typeof method !== "string") method = text(method);
    const type = body === undefined ? undefined : typeOf(body);
    const content = body === undefined ? undefined : contentOf(body);
    const all = flat(headers);
    let begun = host.fetch(grant, target, query, method, all, lines, content, type);
    if (begun === 1) {
      const checked = flat(new Headers(headers)); // which throws, in most cases
      begun = host.fetch(grant, target, query, method, checked, lines, content, type);
      if (begun === 1) throw new TypeError("these are more headers than a request may have");
    }
    if (begun === undefined) throw notCovered(target, method);
    if (typeof begun === "number") return unbegun();
    return signal === undefined || signal === null ? begun : aborting(signal, begun);
  };

  const notCovered = (target, method) => {
    const { origin, pathname } = addressOf(target);
    method = upper(method ?? "GET");
    return refused({
      code: "fetch.not_covered", retry: false,
      message: `no http grant of this function covers ${method} ${origin}${pathname}; a grant in app.toml would be http = "${origin}${pathname}", methods = ["${method}"]`,
    });
  };

  world.grantKinds.http = (use, about, grant) => ({
    __proto__: null,
    fetch: (init = undefined) => {
      try {
        if (init === undefined || init === null) return send(grant, undefined, undefined, undefined);
        const { values, query } = init;
        return send(grant, values === undefined ? undefined : stringify(values), query === undefined ? undefined : stringify(query instanceof Query ? [...query] : query), init);
      } catch (thrown) {
        return rejected(thrown);
      }
    },
  });

  function fetch(input, init = undefined) {
    try {
      if (typeof input === "string") return send(ofURL, input, undefined, init);
      if (typeof input !== "object" || input === null || requestOf(input) === undefined) return send(ofURL, text(input), undefined, init);
      const { url, method, headers, body, signal } = requestOf(new Request(input, init));
      return send(ofURL, url, undefined, { __proto__: null, method, headers, body, signal });
    } catch (thrown) {
      return rejected(thrown);
    }
  }

  for (const constructor of [Headers, Request, Response]) world.expose(constructor);
  world.define({ fetch });
})
