// TextEncoder and TextDecoder, after the Encoding Standard. The host does the work; it takes at most
// so many bytes at once, and the script can be stopped in between.
(function (host, world) {
  "use strict";
  const atOnce = 1 << 20;
  const { text, bytesOf } = world;

  class TextEncoder {
    get encoding() { return "utf-8"; }

    encode(input = "") { return host.encode(text(input)); }

    encodeInto(source, destination) {
      if (!(destination instanceof Uint8Array)) throw new TypeError("the destination must be a Uint8Array");
      // No character has fewer bytes than UTF-16 units, so that more of the source cannot fit.
      const bytes = host.encode(`${source}`.slice(0, destination.length + 1).toWellFormed());
      let written = Math.min(bytes.length, destination.length);
      while (written < bytes.length && written > 0 && (bytes[written] & 0xc0) === 0x80) written--;
      destination.set(bytes.subarray(0, written));
      let read = 0;
      for (let i = 0; i < written; i++) {
        if ((bytes[i] & 0xc0) !== 0x80) read += bytes[i] >= 0xf0 ? 2 : 1;
      }
      return { read, written };
    }
  }

  // The encodings by their number on the host's side, each with its labels.
  const encodings = ["utf-8", "utf-16le", "utf-16be", "windows-1252"];
  const labels = new Map();
  [
    "unicode-1-1-utf-8 unicode11utf8 unicode20utf8 utf-8 utf8 x-unicode20utf8",
    "csunicode iso-10646-ucs-2 ucs-2 unicode unicodefeff utf-16 utf-16le",
    "unicodefffe utf-16be",
    "ansi_x3.4-1968 ascii cp1252 cp819 csisolatin1 ibm819 iso-8859-1 iso-ir-100 iso8859-1 iso88591 iso_8859-1 iso_8859-1:1987 l1 latin1 us-ascii windows-1252 x-cp1252",
  ].forEach((names, number) => names.split(" ").forEach((name) => labels.set(name, number)));
  const [utf8, utf16le, utf16be] = [0, 1, 2];

  // unfinished returns how many bytes at the end may be the beginning of a character.
  function unfinished(encoding, bytes) {
    const n = bytes.length;
    if (encoding === utf16le || encoding === utf16be) {
      const odd = n % 2;
      if (n - odd < 2) return odd;
      const high = bytes[n - odd - (encoding === utf16le ? 1 : 2)];
      return odd + (high >= 0xd8 && high <= 0xdb ? 2 : 0);
    }
    if (encoding !== utf8) return 0;
    for (let back = 1; back <= Math.min(3, n); back++) {
      const first = bytes[n - back];
      if ((first & 0xc0) === 0x80) continue;
      const wanted = first >= 0xf0 && first <= 0xf4 ? 4 : first >= 0xe0 && first <= 0xef ? 3 : first >= 0xc2 && first <= 0xdf ? 2 : 1;
      if (wanted <= back) return 0;
      if (back > 1) {
        const second = bytes[n - back + 1];
        const least = first === 0xe0 ? 0xa0 : first === 0xf0 ? 0x90 : 0x80;
        const most = first === 0xed ? 0x9f : first === 0xf4 ? 0x8f : 0xbf;
        if (second < least || second > most) return 0;
      }
      return back;
    }
    return 0;
  }

  function joined(first, second) {
    const all = new Uint8Array(first.length + second.length);
    all.set(first);
    all.set(second, first.length);
    return all;
  }

  const nothing = new Uint8Array(0);

  class TextDecoder {
    #encoding;
    #fatal;
    #ignoreBOM;
    #rest = nothing; // of the last chunk
    #begun = false;  // whether a byte order mark could still come

    constructor(label = "utf-8", options = {}) {
      const encoding = labels.get(`${label}`.replace(/^[\t\n\f\r ]+|[\t\n\f\r ]+$/g, "").toLowerCase());
      if (encoding === undefined) throw new RangeError(`the encoding ${label} is not supported: functions have ${encodings.join(", ")}`);
      this.#encoding = encoding;
      this.#fatal = Boolean(options?.fatal);
      this.#ignoreBOM = Boolean(options?.ignoreBOM);
    }

    get encoding() { return encodings[this.#encoding]; }
    get fatal() { return this.#fatal; }
    get ignoreBOM() { return this.#ignoreBOM; }

    decode(input = nothing, options = {}) {
      const more = Boolean(options?.stream);
      let bytes = bytesOf(input);
      if (this.#rest.length > 0) bytes = joined(this.#rest, bytes);
      this.#rest = nothing;
      try {
        return this.#decoded(bytes, more);
      } catch (thrown) {
        this.#rest = nothing;
        this.#begun = false;
        throw thrown;
      }
    }

    #decoded(bytes, more) {
      const pieces = [];
      for (let from = 0, to; from < bytes.length; from = to) {
        to = Math.min(from + atOnce, bytes.length);
        let piece = bytes.subarray(from, to);
        if (more || to < bytes.length) {
          const rest = unfinished(this.#encoding, piece);
          piece = piece.subarray(0, piece.length - rest);
          if (to === bytes.length) this.#rest = piece.length + rest === 0 ? nothing : bytes.slice(to - rest);
          else to -= rest;
        }
        const decoded = host.decode(this.#encoding, piece, this.#fatal ? 1 : 0);
        if (decoded === undefined) throw new TypeError(`the data is not ${encodings[this.#encoding]}`);
        pieces.push(decoded);
      }
      let result = pieces.length === 1 ? pieces[0] : pieces.join("");
      if (!this.#begun && result.length > 0) {
        this.#begun = true;
        if (!this.#ignoreBOM && result[0] === "\ufeff") result = result.slice(1);
      }
      if (!more) this.#begun = false;
      return result;
    }
  }

  world.expose(TextEncoder);
  world.expose(TextDecoder);
})
