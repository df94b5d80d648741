// crypto, and Math.random. The numbers come from the host, anew for every event.
(function (host, world) {
  "use strict";
  const { bytesOf } = world;
  const integers = new Set([Int8Array, Uint8Array, Uint8ClampedArray, Int16Array, Uint16Array, Int32Array, Uint32Array, BigInt64Array, BigUint64Array]
    .map((constructor) => host.classOf(new constructor(0))));
  const most = 65536;

  function randomBytes(bytes) {
    host.random(bytes);
    return bytes;
  }

  // Math.random is sfc32, seeded when an event first asks: the image has no seed.
  let seed = null;

  function random32() {
    seed ??= new Uint32Array(randomBytes(new Uint8Array(16)).buffer);
    const sum = (seed[0] + seed[1] + seed[3]) | 0;
    seed[3] = seed[3] + 1;
    seed[0] = seed[1] ^ (seed[1] >>> 9);
    seed[1] = seed[2] + (seed[2] << 3);
    seed[2] = ((seed[2] << 21) | (seed[2] >>> 11)) + sum;
    return sum >>> 0;
  }

  // forgetSeed makes the next to ask draw its own.
  world.forgetSeed = () => { seed = null; };

  const bits = { __proto__: null, "SHA-1": 160, "SHA-256": 256, "SHA-384": 384, "SHA-512": 512 };

  const subtle = Object.freeze({
    async digest(algorithm, data) {
      const name = typeof algorithm === "object" && algorithm !== null ? algorithm.name : algorithm;
      const size = bits[`${name}`.toUpperCase()];
      if (size === undefined) throw new DOMException(`the digest ${name} is not supported: functions have ${Object.keys(bits).join(", ")}`, "NotSupportedError");
      const result = new Uint8Array(size / 8);
      host.digest(size, bytesOf(data), result);
      return result.buffer;
    },
  });

  const crypto = Object.freeze({
    subtle,
    getRandomValues(array) {
      if (!ArrayBuffer.isView(array) || !integers.has(host.classOf(array))) throw new DOMException("an array of integers is wanted", "TypeMismatchError");
      if (array.byteLength > most) throw new DOMException(`at most ${most} bytes at once`, "QuotaExceededError");
      randomBytes(bytesOf(array));
      return array;
    },
    randomUUID() {
      const bytes = randomBytes(new Uint8Array(16));
      bytes[6] = (bytes[6] & 0x0f) | 0x40;
      bytes[8] = (bytes[8] & 0x3f) | 0x80;
      return bytes.toHex().replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
    },
  });

  world.define({ random: () => (random32() >>> 5) / 2 ** 27 + (random32() >>> 6) / 2 ** 53 }, Math);
  world.define({ crypto });
})
