// Event, EventTarget, AbortController and AbortSignal, after the DOM Standard, for targets that have no parent.
(function (host, world) {
  "use strict";
  const monotonic = () => performance.now();
  const dispatch = Symbol("dispatch");

  class Event {
    static NONE = 0;
    static CAPTURING_PHASE = 1;
    static AT_TARGET = 2;
    static BUBBLING_PHASE = 3;
    #type;
    #init;
    #time = monotonic();
    #target = null;
    #dispatching = false;
    #canceled = false;
    #stopped = false;
    #stoppedAtOnce = false;

    constructor(type, init = {}) {
      if (arguments.length === 0) throw new TypeError("an event needs a type");
      this.#type = `${type}`;
      this.#init = { bubbles: Boolean(init?.bubbles), cancelable: Boolean(init?.cancelable), composed: Boolean(init?.composed) };
    }

    get type() { return this.#type; }
    get target() { return this.#target; }
    get srcElement() { return this.#target; }
    get currentTarget() { return this.#dispatching ? this.#target : null; }
    get eventPhase() { return this.#dispatching ? Event.AT_TARGET : Event.NONE; }
    get bubbles() { return this.#init.bubbles; }
    get cancelable() { return this.#init.cancelable; }
    get composed() { return this.#init.composed; }
    get defaultPrevented() { return this.#canceled; }
    get returnValue() { return !this.#canceled; }
    get cancelBubble() { return this.#stopped; }
    get isTrusted() { return false; }
    get timeStamp() { return this.#time; }
    composedPath() { return this.#dispatching ? [this.#target] : []; }
    preventDefault() { if (this.#init.cancelable) this.#canceled = true; }
    stopPropagation() { this.#stopped = true; }
    stopImmediatePropagation() { this.#stopped = this.#stoppedAtOnce = true; }

    // dispatch calls what next returns until it returns nothing, or a listener stops it.
    static [dispatch](event, target, next) {
      if (event.#dispatching) throw new DOMException("the event is being dispatched already", "InvalidStateError");
      event.#dispatching = true;
      event.#target = target;
      try {
        for (let listener; !event.#stoppedAtOnce && (listener = next()) !== undefined;) {
          try {
            if (typeof listener === "function") listener.call(target, event);
            else listener.handleEvent(event);
          } catch (thrown) {
            world.report(thrown);
          }
        }
      } finally {
        event.#dispatching = event.#stopped = event.#stoppedAtOnce = false;
      }
      return !event.#canceled;
    }
  }

  class CustomEvent extends Event {
    #detail;
    constructor(type, init = {}) {
      super(...arguments);
      this.#detail = init?.detail ?? null;
    }
    get detail() { return this.#detail; }
  }

  class EventTarget {
    #listeners = [];

    addEventListener(type, callback, options) {
      type = `${type}`;
      const capture = typeof options === "object" && options !== null ? Boolean(options.capture) : Boolean(options);
      const { once = false, signal } = Object(options);
      if (signal !== undefined && !(signal instanceof AbortSignal)) throw new TypeError("signal must be an AbortSignal");
      if (signal?.aborted || callback === null || callback === undefined) return;
      if (typeof callback !== "function" && typeof callback !== "object") throw new TypeError("a listener is a function or an object with handleEvent");
      if (this.#listeners.some((l) => l.type === type && l.callback === callback && l.capture === capture)) return;
      this.#listeners.push({ type, callback, capture, once: Boolean(once), removed: false });
      signal?.addEventListener("abort", () => this.removeEventListener(type, callback, { capture }), { once: true });
    }

    removeEventListener(type, callback, options) {
      type = `${type}`;
      const capture = typeof options === "object" && options !== null ? Boolean(options.capture) : Boolean(options);
      this.#remove((l) => l.type === type && l.callback === callback && l.capture === capture);
    }

    #remove(matches) {
      this.#listeners = this.#listeners.filter((l) => {
        if (matches(l)) l.removed = true;
        return !l.removed;
      });
    }

    dispatchEvent(event) {
      if (!(event instanceof Event)) throw new TypeError("an Event is wanted");
      const { type } = event;
      const found = this.#listeners.filter((l) => l.type === type);
      const listeners = [...found.filter((l) => l.capture), ...found.filter((l) => !l.capture)].values();
      return Event[dispatch](event, this, () => {
        for (const listener of listeners) {
          if (listener.removed) continue;
          if (listener.once) this.#remove((l) => l === listener);
          return listener.callback;
        }
      });
    }
  }

  const key = Symbol("an AbortSignal is made by an AbortController");

  class AbortSignal extends EventTarget {
    #reason;
    #aborted = false;
    #then = []; // what has to be done, before events
    #handler = null;

    constructor(from) {
      if (from !== key) throw new TypeError("Illegal constructor");
      super();
    }

    get aborted() { return this.#aborted; }
    get reason() { return this.#reason; }
    get onabort() { return this.#handler; }
    set onabort(handler) {
      if (this.#handler !== null) this.removeEventListener("abort", this.#handler);
      this.#handler = typeof handler === "function" ? handler : null;
      this.addEventListener("abort", this.#handler);
    }
    throwIfAborted() { if (this.#aborted) throw this.#reason; }

    static abort(reason) {
      const signal = new AbortSignal(key);
      signal.#abort(reason);
      return signal;
    }

    static timeout(milliseconds) {
      const wait = Number(milliseconds);
      if (!(wait >= 0)) throw new TypeError("the time must be a number of milliseconds");
      const signal = new AbortSignal(key);
      setTimeout(() => signal.#abort(new DOMException("the operation timed out", "TimeoutError")), wait);
      return signal;
    }

    static any(signals) {
      const all = [...signals];
      if (!all.every((source) => source instanceof AbortSignal)) throw new TypeError("AbortSignals are wanted");
      const signal = new AbortSignal(key);
      const aborted = all.find((source) => source.aborted);
      if (aborted !== undefined) signal.#abort(aborted.reason);
      else for (const source of all) source.#then.push(() => signal.#abort(source.#reason));
      return signal;
    }

    static [dispatch](signal, reason) { signal.#abort(reason); }

    #abort(reason = new DOMException("the operation was aborted", "AbortError")) {
      if (this.#aborted) return;
      this.#aborted = true;
      this.#reason = reason;
      const then = this.#then;
      this.#then = [];
      for (const next of then) next();
      this.dispatchEvent(new Event("abort"));
    }
  }
  const abort = AbortSignal[dispatch];
  delete AbortSignal[dispatch];

  class AbortController {
    #signal = new AbortSignal(key);
    get signal() { return this.#signal; }
    abort(reason) { abort(this.#signal, reason); }
  }

  for (const constructor of [Event, CustomEvent, EventTarget, AbortSignal, AbortController]) world.expose(constructor);
})
