// structuredClone, after the HTML Standard.
(function (host, world) {
  "use strict";
  const { getOwnPropertyDescriptor, keys, defineProperty } = Object;
  const call = (f) => Function.prototype.call.bind(f);
  const getter = (prototype, name) => call(getOwnPropertyDescriptor(prototype, name).get);

  const getTime = call(Date.prototype.getTime);
  const mapEntries = call(Map.prototype.forEach);
  const setValues = call(Set.prototype.forEach);
  const resizable = getter(ArrayBuffer.prototype, "resizable");
  const detached = getter(ArrayBuffer.prototype, "detached");
  const byteLength = getter(ArrayBuffer.prototype, "byteLength");
  const maxByteLength = getter(ArrayBuffer.prototype, "maxByteLength");
  const transferred = call(ArrayBuffer.prototype.transfer);
  const typedArray = Object.getPrototypeOf(Uint8Array.prototype);
  const lengthOf = getter(typedArray, "length");
  const source = getter(RegExp.prototype, "source");
  const flags = getter(RegExp.prototype, "flags");
  const errors = { __proto__: null, EvalError, RangeError, ReferenceError, SyntaxError, TypeError, URIError };

  // The built-in classes by the number the host has for each. An object cannot pretend to be another's.
  const classes = new Map();
  const known = (kind, ...samples) => samples.forEach((sample) => classes.set(host.classOf(sample), kind));
  known("object", {});
  known("arguments", (function () { return arguments; })(), (function () { "use strict"; return arguments; })());
  known("array", []);
  known("boxed", Object(true), Object(0), Object(""), Object(0n));
  known("date", new Date(0));
  known("regexp", /x/);
  known("map", new Map());
  known("set", new Set());
  known("error", new Error());
  known("buffer", new ArrayBuffer(0));
  known("dataview", new DataView(new ArrayBuffer(0)));
  known("exception", new DOMException(""));
  const arrays = [Int8Array, Uint8Array, Uint8ClampedArray, Int16Array, Uint16Array, Int32Array, Uint32Array, Float16Array, Float32Array, Float64Array, BigInt64Array, BigUint64Array];
  const constructors = new Map(arrays.map((constructor) => [host.classOf(new constructor(0)), constructor]));
  for (const number of constructors.keys()) classes.set(number, "view");

  const fail = (what) => { throw new DOMException(`${what} could not be cloned`, "DataCloneError"); };

  function cloned(value, seen) {
    if (typeof value === "symbol") fail("a symbol");
    if (typeof value === "function") fail(`the function ${getOwnPropertyDescriptor(value, "name")?.value ?? ""}`.trimEnd());
    if (typeof value !== "object" || value === null) return value;
    const before = seen.get(value);
    if (before !== undefined) return before;
    const remember = (copy) => { seen.set(value, copy); return copy; };
    switch (classes.get(host.classOf(value))) {
      case "object":
      case "arguments": return copyProperties(value, remember({}), seen);
      case "array": {
        const copy = remember([]);
        copy.length = value.length;
        return copyProperties(value, copy, seen);
      }
      case "boxed": {
        const primitive = primitiveOf(value);
        if (typeof primitive === "symbol") fail("a symbol");
        return remember(Object(primitive));
      }
      case "date": return remember(new Date(getTime(value)));
      case "regexp": return remember(new RegExp(source(value), flags(value)));
      case "map": {
        const copy = remember(new Map());
        const entries = [];
        mapEntries(value, (v, k) => entries.push(k, v));
        for (let i = 0; i < entries.length; i += 2) copy.set(cloned(entries[i], seen), cloned(entries[i + 1], seen));
        return copy;
      }
      case "set": {
        const copy = remember(new Set());
        const values = [];
        setValues(value, (v) => values.push(v));
        for (const v of values) copy.add(cloned(v, seen));
        return copy;
      }
      case "error": return copyError(value, remember, seen);
      case "exception": {
        const copy = remember(new DOMException(value.message, value.name));
        define(copy, "stack", value.stack);
        return copy;
      }
      case "buffer": return remember(copyBuffer(value));
      case "dataview": {
        const buffer = cloned(value.buffer, seen);
        return remember(new DataView(buffer, value.byteOffset, resizable(value.buffer) ? undefined : value.byteLength));
      }
      case "view": {
        const constructor = constructors.get(host.classOf(value));
        const tracking = resizable(value.buffer) && value.byteOffset + value.byteLength === byteLength(value.buffer);
        return remember(new constructor(cloned(value.buffer, seen), value.byteOffset, tracking ? undefined : lengthOf(value)));
      }
    }
    return fail("an object of this kind");
  }

  function primitiveOf(value) {
    for (const prototype of [Boolean.prototype, Number.prototype, String.prototype, BigInt.prototype]) {
      try {
        return prototype.valueOf.call(value);
      } catch {
        // It is another one's.
      }
    }
    return Symbol.prototype.valueOf.call(value);
  }

  const define = (object, name, value) => defineProperty(object, name, { value, configurable: true, writable: true, enumerable: false });

  function copyProperties(from, to, seen) {
    for (const key of keys(from)) {
      if (!Object.hasOwn(from, key)) continue; // a getter deleted it
      defineProperty(to, key, { value: cloned(from[key], seen), configurable: true, writable: true, enumerable: true });
    }
    return to;
  }

  function copyError(error, remember, seen) {
    const constructor = errors[error.name] ?? Error;
    const message = getOwnPropertyDescriptor(error, "message");
    const copy = remember(new constructor());
    delete copy.message;
    if (message !== undefined && "value" in message) define(copy, "message", `${message.value}`);
    define(copy, "stack", typeof error.stack === "string" ? error.stack : "");
    const cause = getOwnPropertyDescriptor(error, "cause");
    if (cause !== undefined && "value" in cause) define(copy, "cause", cloned(cause.value, seen));
    return copy;
  }

  function copyBuffer(buffer) {
    if (detached(buffer)) fail("a detached ArrayBuffer");
    const size = byteLength(buffer);
    const copy = resizable(buffer) ? new ArrayBuffer(size, { maxByteLength: maxByteLength(buffer) }) : new ArrayBuffer(size);
    new Uint8Array(copy).set(new Uint8Array(buffer));
    return copy;
  }

  function structuredClone(value, options) {
    if (arguments.length === 0) throw new TypeError("a value is wanted");
    const transfer = [...(options?.transfer ?? [])];
    transfer.forEach((buffer, i) => {
      if (!(buffer instanceof ArrayBuffer) || detached(buffer)) fail("a value that is to be transferred, and is no ArrayBuffer,");
      if (transfer.indexOf(buffer) !== i) fail("a value that is to be transferred twice");
    });
    const copy = cloned(value, new Map());
    // The copy has bytes of its own, so that all that is left of a transfer is that the original has none.
    for (const buffer of transfer) transferred(buffer);
    return copy;
  }

  world.define({ structuredClone });
})
