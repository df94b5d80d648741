// What the other parts of the prelude use. Each part is evaluated once, before any script, as the
// expression of a function of what the host provides and of an object that the parts share. Nothing in here
// is reachable from a script but what a part puts into the global object, or main.js hands over.
(function (host, world) {
  "use strict";

  // define makes global variables as the built-in ones are.
  world.define = (values, target = globalThis) => {
    for (const name of Reflect.ownKeys(values)) {
      Object.defineProperty(target, name, { value: values[name], configurable: true, writable: true, enumerable: false });
    }
  };

  // expose makes a class global, with its members as Web IDL has them.
  world.expose = (constructor) => {
    const { prototype, name } = constructor;
    for (const object of [constructor, prototype]) {
      for (const key of Object.getOwnPropertyNames(object)) {
        if (["constructor", "prototype", "length", "name"].includes(key)) continue;
        Object.defineProperty(object, key, { enumerable: true });
      }
    }
    Object.defineProperty(prototype, Symbol.toStringTag, { value: name, configurable: true });
    world.define({ [name]: constructor });
  };

  // What a script can replace in the prototypes is kept as it was, for what becomes of an event not to depend on it.
  // (A template is a call of concat to QuickJS, which a script can replace too: where it counts, there is a sum.)
  const uncurried = Function.prototype.bind.bind(Function.prototype.call);
  world.uncurried = uncurried;
  world.wellFormed = uncurried(String.prototype.toWellFormed);
  world.slice = uncurried(String.prototype.slice);

  // text makes what Web IDL calls a USVString of a value. The host takes no other strings.
  world.text = (value) => world.wellFormed(`${value}`);

  const { isView } = ArrayBuffer;

  // bytesOf returns the bytes of an ArrayBuffer or a view, without copying them.
  world.bytesOf = (source) => {
    if (isView(source)) return new Uint8Array(source.buffer, source.byteOffset, source.byteLength);
    if (source instanceof ArrayBuffer || source instanceof SharedArrayBuffer) return new Uint8Array(source);
    throw new TypeError("an ArrayBuffer, a typed array or a DataView is wanted");
  };

  // report makes an exception of a callback fail the attempt, as one in a timer does.
  world.report = (thrown) => queueMicrotask(() => { throw thrown; });

  world.define({
    self: globalThis,
    reportError: (thrown) => world.report(thrown),
  });
})
