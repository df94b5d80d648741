// console, and ctx.log: lines for the function log.
(function (host, world) {
  "use strict";
  const [debug, info, warn, error] = [0, 1, 2, 3];

  world.textOf = (value) => {
    if (typeof value === "string") return value;
    try {
      if (value instanceof Error) return `${String(value)}\n${value.stack}`.trimEnd();
      if (value instanceof Map) return `Map ${JSON.stringify([...value])}`;
      if (value instanceof Set) return `Set ${JSON.stringify([...value])}`;
      if (typeof value === "object" && value !== null) return JSON.stringify(value) ?? String(value);
      return String(value);
    } catch {
      return "[a value without a text]";
    }
  };

  const { wellFormed } = world;
  const write = (level, values) => {
    let line = "";
    for (let i = 0; i < values.length; i++) line += (i === 0 ? "" : " ") + world.textOf(values[i]);
    host.log(level, wellFormed(line));
  };
  const logger = (level) => (...values) => write(level, values);
  const levels = { debug: logger(debug), info: logger(info), warn: logger(warn), error: logger(error) };
  world.log = Object.freeze(Object.assign(logger(info), levels));

  // formatted replaces what console has in common with C's printf.
  function formatted([first, ...rest]) {
    if (typeof first !== "string" || !first.includes("%") || rest.length === 0) return [first, ...rest];
    const text = first.replace(/%[sdifoOc%]/g, (directive) => {
      if (directive === "%%") return "%";
      if (rest.length === 0) return directive;
      const value = rest.shift();
      switch (directive) {
        case "%c": return "";
        case "%s": return world.textOf(value);
        case "%d":
        case "%i": return typeof value === "symbol" ? "NaN" : String(typeof value === "bigint" ? value : parseInt(value, 10));
        case "%f": return typeof value === "symbol" ? "NaN" : String(parseFloat(value));
      }
      return world.textOf(value);
    });
    return [text, ...rest];
  }

  const counts = new Map();
  const times = new Map();
  let indent = "";
  const print = (level) => (...values) => {
    const line = formatted(values);
    write(level, indent === "" ? line : [indent + world.textOf(line[0]), ...line.slice(1)]);
  };
  const [log, printWarn] = [print(info), print(warn)];
  const nameOf = (label) => (label === undefined ? "default" : world.textOf(label));
  const elapsed = (label, values) => {
    const name = nameOf(label);
    if (!times.has(name)) return printWarn(`there is no timer ${name}`);
    log(`${name}: ${performance.now() - times.get(name)} ms`, ...values);
  };
  const group = (...labels) => {
    if (labels.length > 0) log(...labels);
    if (indent.length < 64) indent += "  ";
  };

  const console = {
    log, info: log, debug: print(debug), warn: printWarn, error: print(error),
    trace(...values) { print(debug)("Trace:", ...values, `\n${new Error().stack}`); },
    assert(condition, ...values) { if (!condition) print(error)("Assertion failed", ...values); },
    dir: (value) => log(value),
    dirxml: log,
    table: (value) => log(value),
    count(label) {
      const name = nameOf(label);
      counts.set(name, (counts.get(name) ?? 0) + 1);
      log(`${name}: ${counts.get(name)}`);
    },
    countReset(label) { counts.delete(nameOf(label)); },
    time(label) { times.set(nameOf(label), performance.now()); },
    timeLog: (label, ...values) => elapsed(label, values),
    timeEnd(label) {
      elapsed(label, []);
      times.delete(nameOf(label));
    },
    group,
    groupCollapsed: group,
    groupEnd() { indent = indent.slice(2); },
    clear() {},
  };
  world.define({ console });
})
