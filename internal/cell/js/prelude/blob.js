// Grants of kind blob: objects that may be larger than the function's memory go through it in parts.
(function (host, world) {
  "use strict";
  const { bytesOf, grantKinds, uncurried, define } = world;
  const { min, max, floor } = Math;
  const { isView } = ArrayBuffer;
  const NativeBuffer = ArrayBuffer;
  const Bytes = Uint8Array;
  const subarray = uncurried(Bytes.prototype.subarray);
  const setBytes = uncurried(Bytes.prototype.set);
  const split = uncurried(String.prototype.split);
  const toNumber = Number;
  const { iterator, asyncIterator } = Symbol;
  const encoder = new TextEncoder();
  const encode = uncurried(TextEncoder.prototype.encode);
  const mostPart = 262144; // more is no faster, and takes memory that the function may want
  const textRoom = 2048; // of a request, beside a part

  const valueAndBytes = (value, body) => value === null ? null : { value, body: body ?? new Bytes() };
  const whole = (source) => typeof source === "string" || source instanceof NativeBuffer || isView(source);
  const bytesIn = (source) => typeof source === "string" ? encode(encoder, source) : bytesOf(source);

  // about is how many bytes a request and a reply may have.
  grantKinds.blob = (use, about) => {
    const [request, reply] = split(about, " ");
    const putPart = min(mostPart, max(toNumber(request) - textRoom, floor(toNumber(request) / 2)));
    const getPart = min(mostPart, max(toNumber(reply) - textRoom, 1));

    // writer puts bytes together to parts of one size, and writes each when it is full.
    const writer = (upload) => {
      let offset = 0;
      let part = new Bytes(putPart);
      let filled = 0;
      const flush = async () => {
        if (filled === 0) return;
        ({ size: offset } = await use("write", { upload, offset }, subarray(part, 0, filled)));
        filled = 0;
      };
      const write = async (bytes) => {
        for (let at = 0; at < bytes.length;) {
          const n = min(putPart - filled, bytes.length - at);
          setBytes(part, subarray(bytes, at, at + n), filled);
          filled += n;
          at += n;
          if (filled === putPart) await flush();
        }
      };
      return { __proto__: null, write, flush };
    };

    const put = async (name, source, options) => {
      const { ttl, version, digest } = options ?? {};
      const terms = { name, ttl, version, digest };
      const bytes = whole(source) ? bytesIn(source) : undefined;
      if (bytes === undefined && typeof source?.[asyncIterator] !== "function" && typeof source?.[iterator] !== "function") {
        throw new TypeError("the content must be a text, bytes or an iterable of them");
      }
      if (bytes !== undefined && bytes.length <= putPart) return use("put", terms, bytes);
      const { upload } = await use("open", terms);
      try {
        const { write, flush } = writer(upload);
        if (bytes !== undefined) await write(bytes);
        else for await (const some of source) await write(bytesIn(some));
        await flush();
        return await use("commit", { upload });
      } catch (thrown) {
        try {
          await use("abort", { upload });
        } catch {
          // It has ended already.
        }
        throw thrown;
      }
    };

    const read = (name, version, offset, length) => use("get", { name, version, offset, length }, undefined, valueAndBytes);

    // parts yields what lies between at and end of the version of an object, beginning with some that was read.
    async function* parts(name, version, some, at, end) {
      for (;;) {
        at += some.length;
        if (some.length > 0) yield some;
        if (at >= end) return;
        ({ body: some } = await read(name, version, at, min(getPart, end - at)));
        if (some.length === 0) throw new TypeError("the object has fewer bytes than it should have");
      }
    }

    // begin reads the first part, which tells what the object is.
    const begin = async (name, options) => {
      const { offset = 0, length, version } = options ?? {};
      const first = await read(name, version, offset, min(getPart, length ?? getPart));
      if (first === null) return null;
      const { value, body } = first;
      const end = min(value.size, offset + (length ?? value.size));
      return { __proto__: null, value, body, offset, end };
    };

    const stream = async (name, options) => {
      const first = await begin(name, options);
      if (first === null) return null;
      const { value, body, offset, end } = first;
      const made = parts(name, value.version, body, offset, end);
      define(value, made);
      return made;
    };

    const get = async (name, options) => {
      const first = await begin(name, options);
      if (first === null) return null;
      const { value, body, offset, end } = first;
      if (body.length >= end - offset) return body;
      const all = new Bytes(end - offset);
      let at = 0;
      for await (const some of parts(name, value.version, body, offset, end)) {
        setBytes(all, some, at);
        at += some.length;
      }
      return all;
    };

    return {
      __proto__: null,
      put,
      get,
      stream,
      stat: (name) => use("stat", { name }),
      delete: (name, { version } = {}) => use("delete", { name, version }, undefined, "deleted"),
      list: ({ prefix, after, limit } = {}) => use("list", { prefix, after, limit }),
    };
  };
})
