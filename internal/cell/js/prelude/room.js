// Room for scripts. QuickJS takes memory in blocks, each for values of one size, and writes to all of a new block.
// The blocks that a small script needs are made here, where all scripts share them: what is in a script's
// image besides is its own values.
(function (host, world) {
  "use strict";
  world.kept = { kept: 0 }; // an object at the end of the prelude: what follows begins in a block that is there
  // The table of names is made anew, all of it, when it is full: not for the names of a script.
  const names = { __proto__: null };
  for (let i = 0; i < 256; i++) names["room for a name " + i] = i;
  const made = [];
  for (let i = 0; i < 2; i++) {
    made.push(
      { a: i, b: i }, { ["key" + i]: 1 }, [i, i], new Array(i), "text " + i, "x".repeat(i * 8), Symbol(), 1n << 70n,
      () => i, async () => {}, function* () {}, class { #a = 1; b() { return this.#a; } },
      new Map(), new Set([1]), new Uint8Array(i), new Date(), /x/, new Error(), Promise.resolve(),
    );
  }
})
