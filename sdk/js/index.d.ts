/**
 * Types for functions in TypeScript and JavaScript.
 *
 *     import type { Handler } from "@sallyport/function"
 *
 *     const handle: Handler<Order> = (event, ctx) => [{ type: "order.priced", data: price(event.data) }]
 *     export default handle
 */

/** Any value that JSON can hold. */
export type Json = null | boolean | number | string | Json[] | { [key: string]: Json | undefined };

/** The event to handle: the attributes of CloudEvents 1.0, and its data. */
export interface Event<Data = any> {
  readonly specversion: string;
  readonly id: string;
  readonly source: string;
  readonly type: string;
  readonly subject?: string;
  /** RFC 3339. */
  readonly time?: string;
  readonly datacontenttype?: string;
  readonly dataschema?: string;
  /** JSON data, parsed; any other data as a Uint8Array. */
  readonly data: Data;
  /** Extension attributes. */
  readonly [extension: string]: any;
}

/** An event to publish. One of the function's `publish` grants must name its type. */
export interface NewEvent {
  type: string;
  /** A Uint8Array or an ArrayBuffer is sent as binary data, anything else as JSON. */
  data?: unknown;
  subject?: string;
  datacontenttype?: string;
  /** When there is none, the server makes one that a retried attempt makes again. */
  id?: string;
}

export interface Log {
  (...values: unknown[]): void;
  debug(...values: unknown[]): void;
  info(...values: unknown[]): void;
  warn(...values: unknown[]): void;
  error(...values: unknown[]): void;
}

/** How a failed attempt is to go on. Any thrown error may have these properties. */
export interface FailOptions {
  /** false: no further attempt. */
  retry?: boolean;
  /** Not earlier than in so many seconds. */
  retryAfter?: number;
}

/** What a handler is called with. `Handler` of `app.types.d.ts`, which "sallyport function types" writes, knows the grants by their names. */
export interface Context<Grants = { readonly [name: string]: any }, Publishes extends string = string> {
  /** Which try at this delivery it is, from 1. */
  readonly attempt: number;
  /** When the invocation is stopped, in milliseconds since 1970. */
  readonly deadline: number;
  /** Writes to the function log; `console` does too. */
  readonly log: Log;
  /** Publishes an event when the handler succeeds. */
  publish(type: Publishes, data?: unknown, options?: Omit<NewEvent, "type" | "data">): void;
  /** The function's grants by their names in app.toml, but for those of kind publish. What each has depends on its kind: see `HttpGrant`, `InvokeGrant`. */
  readonly grants: Grants;
  /** An error that says how to go on: `throw new ctx.Fail("busy", { retryAfter: 30 })`. */
  readonly Fail: new (message?: string, options?: FailOptions & ErrorOptions) => Error & FailOptions;
}

/** What every grant in `ctx.grants` has. A use that fails is rejected with a `GrantError`. */
export interface Grant {
  readonly kind: string;
  /** Does what the grant's kind calls `op`. */
  call(op: string, request?: unknown, body?: ArrayBufferView | ArrayBuffer): Promise<{ value: any; body?: Uint8Array }>;
}

/** A parameter of a statement. */
export type SQLValue = Json | undefined | bigint | ArrayBufferView | ArrayBuffer;

/** What a statement of a grant of kind sql gives. bigint and numeric columns of PostgreSQL are texts, bytes are texts in base64. */
export interface SQLResult<Row = any> {
  rows: Row[];
  /** How many rows the statement changed. */
  changed: number;
}

/** A grant of kind sql: its statements by their names, and a transaction of several, all or none. */
export type SQLGrant<Statements extends { [S in keyof Statements]: SQLValue[] } = { [name: string]: any[] }> = Grant & {
  transaction(statements: SQLStatement<Statements>[]): Promise<SQLResult[]>;
} & { readonly [S in keyof Statements]: (...params: Statements[S]) => Promise<SQLResult> };
type SQLStatement<Statements extends { [S in keyof Statements]: SQLValue[] }> = {
  [S in keyof Statements]: { query: S } & ([] extends Statements[S] ? { params?: Statements[S] } : { params: Statements[S] });
}[keyof Statements];

/** What of a grant of kind kv only reads. */
export interface KVReader<Value = any> extends Grant {
  readonly kind: "kv";
  get(key: string): Promise<Value | null>;
  entry(key: string): Promise<{ value: Value; version: number; expires?: string } | null>;
  list(options?: { prefix?: string; after?: string; limit?: number }): Promise<{
    keys: { key: string; version: number; size: number; expires?: string }[];
    after?: string;
  }>;
}

/** A grant of kind kv. A value is what JSON holds, or bytes. A version is of one value of a key, and never used again. */
export interface KVGrant<Value = any> extends KVReader<Value> {
  /** Returns the version. `ttl` is in seconds. */
  set(key: string, value: Value, options?: { ttl?: number }): Promise<number>;
  /** Replaces the value of that version; 0 is that there is none. `version` of the answer is what there is now. */
  compareAndSet(key: string, version: number, value: Value, options?: { ttl?: number }): Promise<{ set: boolean; version: number }>;
  delete(key: string, options?: { version?: number }): Promise<boolean>;
  increment(key: string, by?: number, options?: { ttl?: number }): Promise<number>;
}

/** What a grant of kind blob keeps: content under a name. A version is of one content of a name, and never used again. */
export interface BlobInfo {
  /** "sha256:" and 64 hexadecimal digits. */
  digest: string;
  size: number;
  version: number;
  /** RFC 3339. */
  expires?: string;
}

/** An object, in parts, as it was when it was opened: when it is replaced meanwhile, the next part is rejected with `grant.blob_changed`. */
export interface BlobStream extends AsyncGenerator<Uint8Array, void, void>, Readonly<BlobInfo> {}

/** What of a grant of kind blob only reads. */
export interface BlobReader extends Grant {
  readonly kind: "blob";
  /** The content, or a part of it, whole in memory; null when there is none of that name. */
  get(name: string, options?: BlobRange): Promise<Uint8Array | null>;
  /** The content, or a part of it, of any size; null when there is none of that name. */
  stream(name: string, options?: BlobRange): Promise<BlobStream | null>;
  stat(name: string): Promise<BlobInfo | null>;
  list(options?: { prefix?: string; after?: string; limit?: number }): Promise<{ objects: (BlobInfo & { name: string })[]; after?: string }>;
}

/** A grant of kind blob: `const pictures: BlobGrant = ctx.grants.pictures`. */
export interface BlobGrant extends BlobReader {
  /**
   * Stores content under a name, whole or not at all. What comes in parts may be of any size: `put("x", (async function* () { … yield bytes; … })())`.
   * `version` is that of the object to be replaced, 0 for none; `digest` what the content must have; `ttl` is in seconds.
   */
  put(name: string, content: BlobPart | Iterable<BlobPart> | AsyncIterable<BlobPart>, options?: { ttl?: number; version?: number; digest?: string }): Promise<BlobInfo>;
  delete(name: string, options?: { version?: number }): Promise<boolean>;
}
export type BlobPart = string | ArrayBufferView | ArrayBuffer;
export interface BlobRange {
  offset?: number;
  length?: number;
  /** Rejects with `grant.blob_changed` when the object has another. */
  version?: number;
}

/** A grant of kind secret. */
export interface SecretGrant extends Grant {
  readonly kind: "secret";
  /** The value: a text, or bytes when it is none. Ask again rather than keep it: it may be rotated. */
  value(): Promise<string | Uint8Array>;
}

/** A grant of kind identity. */
export interface IdentityGrant extends Grant {
  readonly kind: "identity";
  /** A token for the audience of the grant, and when it ends. */
  token(): Promise<{ token: string; expires: string }>;
}

/** A grant of kind http: `const api: HttpGrant = ctx.grants.api`. */
export interface HttpGrant<Method extends string = string, Value extends string = string, Query extends string = string> extends Grant {
  readonly kind: "http";
  /** Sends a request. `values` takes the places of {name} in the grant's URL, and `query` holds what the grant lets the function add. */
  fetch(...init: {} extends HttpGrantInit<Method, Value, Query> ? [init?: HttpGrantInit<Method, Value, Query>] : [init: HttpGrantInit<Method, Value, Query>]): Promise<Response>;
}

export type HttpGrantInit<Method extends string = string, Value extends string = string, Query extends string = string> = Omit<FetchInit, "method"> & {
  method?: Method;
} & HttpGrantValues<Value> & HttpGrantQuery<Query>;
type HttpGrantValues<Value extends string> = [Value] extends [never] ? { values?: undefined } : string extends Value ? { values?: Record<string, Scalar> } : { values: Record<Value, Scalar> };
type HttpGrantQuery<Query extends string> = [Query] extends [never] ? { query?: undefined } : { query?: URLSearchParams | Partial<Record<Query, Scalar | Scalar[]>> | [Query, Scalar][] };
type Scalar = string | number | boolean;

/** A grant of kind invoke: `const tax: InvokeGrant = ctx.grants.tax`. */
export interface InvokeGrant<Data = any, Reply = any> extends Grant {
  readonly kind: "invoke";
  /** Calls the function that the grant names, and resolves to its reply. */
  invoke(data?: Data): Promise<Reply>;
}

/** Why a grant could not be used: `code` is stable, such as "grant.timeout"; `retry` says whether it may succeed later. */
export interface GrantError extends Error {
  readonly code: string;
  readonly retry: boolean;
  /** Seconds. */
  readonly retryAfter?: number;
}

/**
 * Handles one event. A returned array is events to publish; any other value is the reply that a
 * synchronous caller gets. A thrown error, or a rejected promise, fails the attempt.
 */
export type Handler<Data = any> = (event: Event<Data>, ctx: Context) => unknown;

/**
 * What a function has besides ECMAScript. Compile with `"lib": ["ES2024"]` and `"types": []`: the libraries
 * "DOM" and "WebWorker" and the types of Node declare these names too, and much that is not there.
 */
declare global {
  /** Writes to the function log: `log` and `info` at level info, `debug` and `trace` at debug. */
  interface Console {
    assert(condition?: unknown, ...values: unknown[]): void;
    clear(): void;
    count(label?: string): void;
    countReset(label?: string): void;
    debug(...values: unknown[]): void;
    dir(value?: unknown, options?: unknown): void;
    dirxml(...values: unknown[]): void;
    error(...values: unknown[]): void;
    group(...labels: unknown[]): void;
    groupCollapsed(...labels: unknown[]): void;
    groupEnd(): void;
    info(...values: unknown[]): void;
    log(...values: unknown[]): void;
    table(value?: unknown, properties?: string[]): void;
    time(label?: string): void;
    timeEnd(label?: string): void;
    timeLog(label?: string, ...values: unknown[]): void;
    trace(...values: unknown[]): void;
    warn(...values: unknown[]): void;
  }
  var console: Console;

  var self: typeof globalThis;

  /** Timers run until the handler's promise settles or the deadline is there. */
  function setTimeout<A extends unknown[]>(callback: (...args: A) => void, delay?: number, ...args: A): number;
  function setInterval<A extends unknown[]>(callback: (...args: A) => void, delay?: number, ...args: A): number;
  function clearTimeout(id: number | undefined): void;
  function clearInterval(id: number | undefined): void;
  function queueMicrotask(callback: () => void): void;
  /** Fails the attempt, as an exception does that nothing catches. */
  function reportError(error: unknown): void;

  function atob(data: string): string;
  function btoa(data: string): string;
  /** Of the values that can be transferred there are ArrayBuffers only. */
  function structuredClone<T>(value: T, options?: { transfer?: ArrayBuffer[] }): T;

  /**
   * Sends a request, when one of the function's `http` grants has the method and its template makes the URL; the grant's credential is added outside of
   * the function. Otherwise it is rejected with a `GrantError` whose code is `fetch.not_covered`. Redirects are the grant's to follow or not.
   */
  function fetch(request: string | URL | Request, init?: FetchInit): Promise<Response>;

  interface FetchInit {
    method?: string;
    headers?: HeadersInit;
    body?: BodyInit | null;
    signal?: AbortSignal | null;
  }
  type HeadersInit = Headers | Record<string, string> | Iterable<readonly [string, string]>;
  type BodyInit = string | URLSearchParams | BufferSource;

  class Headers {
    constructor(init?: HeadersInit);
    append(name: string, value: string): void;
    delete(name: string): void;
    get(name: string): string | null;
    getSetCookie(): string[];
    has(name: string): boolean;
    set(name: string, value: string): void;
    forEach(callback: (value: string, name: string, headers: Headers) => void, self?: unknown): void;
    entries(): Generator<[string, string]>;
    keys(): Generator<string>;
    values(): Generator<string>;
    [Symbol.iterator](): Generator<[string, string]>;
  }

  /** A request for `fetch`. Its body is there whole, and is read once: by `fetch`, or by one of these methods. */
  class Request {
    constructor(input: string | URL | Request, init?: FetchInit);
    readonly method: string;
    readonly url: string;
    readonly headers: Headers;
    readonly signal: AbortSignal;
    readonly bodyUsed: boolean;
    arrayBuffer(): Promise<ArrayBuffer>;
    bytes(): Promise<Uint8Array>;
    json(): Promise<any>;
    text(): Promise<string>;
    clone(): Request;
  }

  /** An answer, whole: its body is not streamed. */
  class Response {
    constructor(body?: BodyInit | null, init?: { status?: number; statusText?: string; headers?: HeadersInit });
    static json(data: unknown, init?: { status?: number; statusText?: string; headers?: HeadersInit }): Response;
    readonly type: "basic" | "default";
    readonly url: string;
    readonly redirected: boolean;
    readonly status: number;
    readonly ok: boolean;
    readonly statusText: string;
    readonly headers: Headers;
    readonly bodyUsed: boolean;
    arrayBuffer(): Promise<ArrayBuffer>;
    bytes(): Promise<Uint8Array>;
    json(): Promise<any>;
    text(): Promise<string>;
    clone(): Response;
  }

  interface Performance {
    /** Milliseconds since the event began. */
    now(): number;
    /** When the event began, in milliseconds since 1970. */
    readonly timeOrigin: number;
  }
  var performance: Performance;

  type BufferSource = ArrayBufferView | ArrayBuffer;

  interface SubtleCrypto {
    digest(algorithm: DigestName | { name: DigestName }, data: BufferSource): Promise<ArrayBuffer>;
  }
  type DigestName = "SHA-1" | "SHA-256" | "SHA-384" | "SHA-512";
  interface Crypto {
    readonly subtle: SubtleCrypto;
    getRandomValues<T extends Int8Array | Uint8Array | Uint8ClampedArray | Int16Array | Uint16Array | Int32Array | Uint32Array | BigInt64Array | BigUint64Array>(array: T): T;
    randomUUID(): `${string}-${string}-${string}-${string}-${string}`;
  }
  var crypto: Crypto;

  interface TextEncoder {
    readonly encoding: "utf-8";
    encode(input?: string): Uint8Array;
    encodeInto(source: string, destination: Uint8Array): { read: number; written: number };
  }
  var TextEncoder: { prototype: TextEncoder; new (): TextEncoder };

  interface TextDecoder {
    readonly encoding: string;
    readonly fatal: boolean;
    readonly ignoreBOM: boolean;
    decode(input?: BufferSource, options?: { stream?: boolean }): string;
  }
  /** The labels of utf-8, utf-16le, utf-16be and windows-1252 are known, such as "utf8" and "latin1". */
  var TextDecoder: { prototype: TextDecoder; new (label?: string, options?: { fatal?: boolean; ignoreBOM?: boolean }): TextDecoder };

  interface URL {
    href: string;
    readonly origin: string;
    protocol: string;
    username: string;
    password: string;
    host: string;
    hostname: string;
    port: string;
    pathname: string;
    search: string;
    readonly searchParams: URLSearchParams;
    hash: string;
    toString(): string;
    toJSON(): string;
  }
  var URL: {
    prototype: URL;
    new (url: string | URL, base?: string | URL): URL;
    canParse(url: string | URL, base?: string | URL): boolean;
    parse(url: string | URL, base?: string | URL): URL | null;
  };

  interface URLSearchParams {
    readonly size: number;
    append(name: string, value: string): void;
    delete(name: string, value?: string): void;
    get(name: string): string | null;
    getAll(name: string): string[];
    has(name: string, value?: string): boolean;
    set(name: string, value: string): void;
    sort(): void;
    toString(): string;
    forEach(callback: (value: string, name: string, params: URLSearchParams) => void, self?: unknown): void;
    entries(): IterableIterator<[string, string]>;
    keys(): IterableIterator<string>;
    values(): IterableIterator<string>;
    [Symbol.iterator](): IterableIterator<[string, string]>;
  }
  var URLSearchParams: {
    prototype: URLSearchParams;
    new (init?: string | URLSearchParams | Record<string, string> | Iterable<readonly [string, string]> | readonly (readonly string[])[]): URLSearchParams;
  };

  interface DOMException extends Error {
    readonly code: number;
  }
  var DOMException: { prototype: DOMException; new (message?: string, name?: string): DOMException };

  interface EventInit {
    bubbles?: boolean;
    cancelable?: boolean;
    composed?: boolean;
  }
  /** An event of the web platform. The event that a handler gets is another type: import it from this file. */
  interface Event {
    readonly type: string;
    readonly target: EventTarget | null;
    readonly currentTarget: EventTarget | null;
    readonly eventPhase: number;
    readonly bubbles: boolean;
    readonly cancelable: boolean;
    readonly composed: boolean;
    readonly defaultPrevented: boolean;
    readonly isTrusted: boolean;
    readonly timeStamp: number;
    composedPath(): EventTarget[];
    preventDefault(): void;
    stopPropagation(): void;
    stopImmediatePropagation(): void;
  }
  var Event: { prototype: Event; new (type: string, init?: EventInit): Event };
  interface CustomEvent<T = any> extends Event {
    readonly detail: T;
  }
  var CustomEvent: { prototype: CustomEvent; new <T>(type: string, init?: EventInit & { detail?: T }): CustomEvent<T> };

  type EventListener = ((event: Event) => void) | { handleEvent(event: Event): void };
  interface EventTarget {
    addEventListener(type: string, callback: EventListener | null, options?: boolean | { capture?: boolean; once?: boolean; passive?: boolean; signal?: AbortSignal }): void;
    removeEventListener(type: string, callback: EventListener | null, options?: boolean | { capture?: boolean }): void;
    dispatchEvent(event: Event): boolean;
  }
  var EventTarget: { prototype: EventTarget; new (): EventTarget };

  interface AbortSignal extends EventTarget {
    readonly aborted: boolean;
    readonly reason: any;
    onabort: ((event: Event) => void) | null;
    throwIfAborted(): void;
  }
  var AbortSignal: {
    prototype: AbortSignal;
    abort(reason?: unknown): AbortSignal;
    timeout(milliseconds: number): AbortSignal;
    any(signals: Iterable<AbortSignal>): AbortSignal;
  };
  interface AbortController {
    readonly signal: AbortSignal;
    abort(reason?: unknown): void;
  }
  var AbortController: { prototype: AbortController; new (): AbortController };
}
