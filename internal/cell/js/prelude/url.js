// URL and URLSearchParams, after the URL Standard. The host parses and serialises; an object here has
// the result and the offsets of its parts.
(function (host, world) {
  "use strict";
  const { text, bytesOf } = world;
  const [href, protocol, username, password, hostAndPort, hostname, port, pathname, search, hash] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9];
  const maxURL = 64 << 10;
  const cuts = new Uint32Array(11);
  const cutBytes = bytesOf(cuts);
  let update; // writes a query into a URL, without telling its searchParams

  function parsed(value, base) {
    // A base is not empty when it is given: nothing is relative to an empty one.
    if (base === "") return undefined;
    return host.url(href, value, base ?? "", cutBytes);
  }

  class URL {
    #href;
    #cuts;
    #query = null;

    constructor(url, base = undefined) {
      if (arguments.length === 0) throw new TypeError("a URL is wanted");
      const value = text(url);
      const on = base === undefined ? undefined : text(base);
      if (!this.#take(parsed(value, on))) throw new TypeError(problem(value, on));
    }

    static parse(url, base = undefined) {
      try {
        return new URL(url, base);
      } catch {
        return null;
      }
    }

    static canParse(url, base = undefined) {
      return parsed(text(url), base === undefined ? undefined : text(base)) !== undefined;
    }

    #take(serialised) {
      if (serialised === undefined) return false;
      this.#href = serialised;
      this.#cuts = cuts.slice();
      return true;
    }

    #part(from, to) { return this.#href.slice(this.#cuts[from], to === undefined ? undefined : this.#cuts[to]); }

    #set(part, value) {
      if (!this.#take(host.url(part, text(value), this.#href, cutBytes))) throw new TypeError(`the URL would be longer than ${maxURL} characters`);
    }

    get href() { return this.#href; }
    set href(value) {
      value = text(value);
      if (!this.#take(parsed(value))) throw new TypeError(problem(value));
      this.#renew();
    }
    get origin() {
      const scheme = this.protocol;
      if (scheme === "blob:") {
        const inner = URL.parse(this.pathname);
        return inner?.protocol === "http:" || inner?.protocol === "https:" ? inner.origin : "null";
      }
      return ["http:", "https:", "ws:", "wss:", "ftp:"].includes(scheme) ? `${scheme}//${this.host}` : "null";
    }
    get protocol() { return this.#href.slice(0, this.#cuts[0]); }
    set protocol(value) { this.#set(protocol, value); }
    get username() { return this.#part(1, 2); }
    set username(value) { this.#set(username, value); }
    get password() { return this.#part(3, 4); }
    set password(value) { this.#set(password, value); }
    get host() { return this.#part(5, 7); }
    set host(value) { this.#set(hostAndPort, value); }
    get hostname() { return this.#part(5, 6); }
    set hostname(value) { this.#set(hostname, value); }
    get port() { return this.#part(6, 7).slice(1); }
    set port(value) { this.#set(port, value); }
    get pathname() { return this.#part(8, 9); }
    set pathname(value) { this.#set(pathname, value); }
    get search() {
      const query = this.#part(9, 10);
      return query.length > 1 ? query : "";
    }
    set search(value) {
      this.#set(search, value);
      this.#renew();
    }
    get searchParams() {
      if (this.#query === null) {
        this.#query = new URLSearchParams(this.search);
        update.attach(this.#query, (query) => this.#set(search, query));
      }
      return this.#query;
    }
    get hash() {
      const fragment = this.#part(10);
      return fragment.length > 1 ? fragment : "";
    }
    set hash(value) { this.#set(hash, value); }
    toString() { return this.#href; }
    toJSON() { return this.#href; }

    #renew() { if (this.#query !== null) update.replace(this.#query, this.search); }
  }

  function problem(value, base) {
    if (value.length > maxURL || base?.length > maxURL) return `Invalid URL: it is longer than ${maxURL} characters`;
    const shown = (s) => JSON.stringify(s.length > 200 ? `${s.slice(0, 200)}…` : s);
    return base === undefined ? `Invalid URL: ${shown(value)}` : `Invalid URL: ${shown(value)} with base ${shown(base)}`;
  }

  // --- application/x-www-form-urlencoded ---

  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });

  function unescaped(part) {
    part = part.replaceAll("+", " ");
    if (!part.includes("%")) return part;
    try {
      return decodeURIComponent(part);
    } catch {
      // Some of it is no UTF-8, or no escape.
    }
    const bytes = host.encode(part);
    let length = 0;
    for (let i = 0; i < bytes.length; i++) {
      let byte = bytes[i];
      if (byte === 0x25) {
        const code = /^[0-9a-fA-F]{2}$/.exec(String.fromCharCode(bytes[i + 1], bytes[i + 2]));
        if (code !== null) {
          byte = parseInt(code[0], 16);
          i += 2;
        }
      }
      bytes[length++] = byte;
    }
    return decoder.decode(bytes.subarray(0, length));
  }

  function pairsOf(query) {
    const pairs = [];
    for (const part of query.split("&")) {
      if (part === "") continue;
      const at = part.indexOf("=");
      pairs.push(at < 0 ? [unescaped(part), ""] : [unescaped(part.slice(0, at)), unescaped(part.slice(at + 1))]);
    }
    return pairs;
  }

  const escaped = (part) => encodeURIComponent(part).replace(/%20|[!'()~]/g, (c) => (c === "%20" ? "+" : `%${c.charCodeAt(0).toString(16).toUpperCase()}`));

  const serialised = (pairs) => pairs.map(([name, value]) => `${escaped(name)}=${escaped(value)}`).join("&");

  function initial(init) {
    if (typeof init !== "object" && typeof init !== "function" || init === null) return pairsOf(text(init).replace(/^\?/, ""));
    const iterate = init[Symbol.iterator];
    if (iterate === null || iterate === undefined) {
      const pairs = new Map(); // names that are the same when they are well formed are one
      for (const name of Reflect.ownKeys(init)) {
        if (Object.getOwnPropertyDescriptor(init, name)?.enumerable) pairs.set(text(name), text(init[name]));
      }
      return [...pairs];
    }
    if (typeof iterate !== "function") throw new TypeError("the value cannot be iterated over");
    return Array.from({ [Symbol.iterator]: () => iterate.call(init) }, (pair) => {
      if (typeof pair !== "object" || pair === null) throw new TypeError("a pair of name and value is wanted");
      const both = [...pair];
      if (both.length !== 2) throw new TypeError("a pair of name and value is wanted");
      return both.map(text);
    });
  }

  class URLSearchParams {
    #pairs = [];
    #changed = null; // tells the URL this belongs to

    constructor(init = "") { this.#pairs = initial(init); }

    static {
      update = {
        attach(params, changed) { params.#changed = changed; },
        replace(params, query) { params.#pairs = pairsOf(query.replace(/^\?/, "")); },
      };
    }

    #replace(pairs) {
      this.#changed?.(serialised(pairs));
      this.#pairs = pairs;
    }

    get size() { return this.#pairs.length; }
    append(name, value) {
      wanted(arguments, 2);
      this.#replace([...this.#pairs, [text(name), text(value)]]);
    }
    delete(name, value = undefined) {
      wanted(arguments, 1);
      name = text(name);
      if (value !== undefined) value = text(value);
      this.#replace(this.#pairs.filter(([n, v]) => n !== name || value !== undefined && v !== value));
    }
    get(name) {
      wanted(arguments, 1);
      name = text(name);
      return this.#pairs.find(([n]) => n === name)?.[1] ?? null;
    }
    getAll(name) {
      wanted(arguments, 1);
      name = text(name);
      return this.#pairs.filter(([n]) => n === name).map(([, v]) => v);
    }
    has(name, value = undefined) {
      wanted(arguments, 1);
      name = text(name);
      if (value !== undefined) value = text(value);
      return this.#pairs.some(([n, v]) => n === name && (value === undefined || v === value));
    }
    set(name, value) {
      wanted(arguments, 2);
      name = text(name);
      value = text(value);
      const first = this.#pairs.findIndex(([n]) => n === name);
      if (first < 0) return this.#replace([...this.#pairs, [name, value]]);
      this.#replace(this.#pairs.filter(([n], i) => n !== name || i === first).map((pair) => (pair[0] === name ? [name, value] : pair)));
    }
    sort() { this.#replace(this.#pairs.toSorted(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0))); }
    toString() { return serialised(this.#pairs); }
    forEach(callback, self = undefined) {
      if (typeof callback !== "function") throw new TypeError("the first argument must be a function");
      for (const [name, value] of this) callback.call(self, value, name, this);
    }
    // The list may change while it is iterated over, so that this is no iterator of an array.
    *entries() { for (let i = 0; i < this.#pairs.length; i++) yield [...this.#pairs[i]]; }
    *keys() { for (let i = 0; i < this.#pairs.length; i++) yield this.#pairs[i][0]; }
    *values() { for (let i = 0; i < this.#pairs.length; i++) yield this.#pairs[i][1]; }
  }
  world.define({ [Symbol.iterator]: URLSearchParams.prototype.entries }, URLSearchParams.prototype);

  function wanted(args, count) {
    if (args.length < count) throw new TypeError(`${count === 1 ? "an argument is" : `${count} arguments are`} wanted`);
  }

  world.expose(URL);
  world.expose(URLSearchParams);
})
