// Timers and performance. The host runs timers between jobs.
(function (host, world) {
  "use strict";
  const monotonic = performance.now.bind(performance);
  const epoch = Date.now;
  const longest = 2 ** 31 - 1;
  let timers = [];
  let last = 0;
  let started; // on the monotonic clock, once somebody asked
  let origin; // on the other one

  function set(callback, delay, args, interval) {
    if (typeof callback !== "function") throw new TypeError("the first argument must be a function");
    const wait = Math.max(interval ? 1 : 0, Math.min(Number(delay) || 0, longest));
    if (timers.length === 0) host.timed();
    timers.push({ id: ++last, due: monotonic() + wait, callback, args, every: interval ? wait : -1 });
    return last;
  }

  function clear(id) {
    timers = timers.filter((timer) => timer.id !== id);
  }

  // runTimer runs the timer that is due, if one is, and returns after how many microseconds the next one
  // is; -1 when there is none.
  world.runTimer = () => {
    if (timers.length === 0) return -1;
    let first = timers[0];
    for (const timer of timers) if (timer.due < first.due) first = timer;
    const wait = first.due - monotonic();
    if (wait > 0) return Math.min(Math.ceil(wait * 1000), longest) | 0;
    if (first.every >= 0) first.due = monotonic() + first.every;
    else clear(first.id);
    first.callback(...first.args);
    return 0;
  };

  // begun returns when the event began, or the loading of the script. Only the host knows, and most never ask.
  const begun = () => (started ??= monotonic() - host.elapsed() / 1000);

  // forgetTime makes the next to ask learn of the event's beginning.
  world.forgetTime = () => { started = origin = undefined; };

  world.define({
    performance: {
      now: () => Math.max(monotonic() - begun(), 0),
      get timeOrigin() { return (origin ??= epoch() - (monotonic() - begun())); },
    },
    setTimeout: (callback, delay, ...args) => set(callback, delay, args, false),
    setInterval: (callback, delay, ...args) => set(callback, delay, args, true),
    clearTimeout: clear,
    clearInterval: clear,
  });
})
