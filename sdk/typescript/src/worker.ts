import { hostname } from "node:os";

import type { MessageInitShape } from "@bufbuild/protobuf";

import type { KindSettingsSchema } from "./gen/forebay/v1/worker_pb.js";
import type { Handler } from "./context.js";
import { span } from "./convert.js";
import { milliseconds } from "./duration.js";
import type { Duration } from "./duration.js";
import { Gate } from "./gate.js";
import { texts } from "./input.js";
import type { JsonValue } from "./json.js";
import { silent } from "./logger.js";
import type { Logger } from "./logger.js";
import type { ConnectOptions } from "./options.js";
import { addressOf, defaultUrl } from "./rpc.js";
import type { Host, Registered } from "./session.js";
import { Supervisor } from "./supervisor.js";
import { VERSION } from "./version.js";

/** How a worker works. */
export interface WorkerOptions extends ConnectOptions {
  /** The queues whose tasks it runs; `["default"]` unless said. */
  readonly queues?: readonly string[] | undefined;
  /** How many tasks it runs at once; 16 unless said. */
  readonly concurrency?: number | undefined;
  /** What it is called where workers are listed; the host's name and the process's id unless said. */
  readonly name?: string | undefined;
  /** How long tasks may go on once the worker drains, before they are handed back; 30 seconds unless said. */
  readonly drainTimeout?: Duration | undefined;
  /** Where to tell about connections: `console`, say, or `null` for nowhere; only warnings, to `console`, unless said. */
  readonly logger?: Logger | null | undefined;
}

/** What holds for the tasks of a kind, where the task itself does not say otherwise. */
export interface TaskSettings {
  /** How long one attempt may take; five minutes unless said. */
  readonly timeout?: Duration | undefined;
  /** How many attempts there are; the server's default unless said. */
  readonly maxAttempts?: number | undefined;
  /** How many run at once in this worker; as many as it runs at all unless said. */
  readonly concurrency?: number | undefined;
  /** An attempt that says nothing for so long is ended: see {@link TaskContext.heartbeat}. It need say nothing unless said. */
  readonly heartbeatTimeout?: Duration | undefined;
}

/** How to run a worker. */
export interface RunOptions {
  /** Drains the worker. Where it drains already, changes nothing. */
  readonly signal?: AbortSignal | undefined;
  /**
   * Whether SIGTERM and SIGINT drain the worker while it runs, and a second one hands back at once what runs; `true` unless
   * said.
   */
  readonly handleSignals?: boolean | undefined;
}

const CONCURRENCY = 16;
const DRAIN_TIMEOUT_MS = 30_000;
const SIGNALS = ["SIGTERM", "SIGINT"] as const;

/**
 * Runs tasks in this process.
 *
 * ```ts
 * const worker = new Worker("http://127.0.0.1:50051");
 * worker.task("resize", { timeout: "2m" }, async (payload: { path: string }, ctx) => {
 *   return await resize(payload.path, { signal: ctx.signal });
 * });
 * await worker.run();
 * ```
 *
 * A connection that is lost is made again; what ran is then started elsewhere, and `ctx.signal` says so. Handlers must not
 * keep the event loop busy for seconds: a worker that says nothing counts as dead.
 */
export class Worker {
  readonly #url: string;
  readonly #options: WorkerOptions;
  readonly #concurrency: number;
  readonly #drainTimeoutMs: number;
  readonly #handlers = new Map<string, Registered>();
  readonly #kinds: MessageInitShape<typeof KindSettingsSchema>[] = [];
  #supervisor: Supervisor | undefined;

  /**
   * Nothing is connected yet.
   *
   * @param url - As for a `Client`.
   */
  constructor(url: string = defaultUrl(), options: WorkerOptions = {}) {
    // Who cannot be meant is said now, and not when it runs.
    addressOf(url, options.tls);
    this.#url = url;
    this.#options = options;
    this.#concurrency = count(options.concurrency ?? CONCURRENCY, "concurrency");
    this.#drainTimeoutMs = milliseconds(options.drainTimeout ?? DRAIN_TIMEOUT_MS, "drainTimeout");
  }

  /**
   * Adds the handler of a kind. It returns the task's result. What it throws is a failed attempt, which is tried again by
   * the kind's policy; `Permanent`, `RetryAfter` and `Snooze` say otherwise.
   */
  task<Payload = JsonValue, Result = unknown>(kind: string, handler: Handler<Payload, Result>): this;
  /** The same, with settings for the tasks of that kind. */
  task<Payload = JsonValue, Result = unknown>(
    kind: string,
    settings: TaskSettings,
    handler: Handler<Payload, Result>,
  ): this;
  task<Payload, Result>(
    kind: string,
    ...rest: [Handler<Payload, Result>] | [TaskSettings, Handler<Payload, Result>]
  ): this {
    const [settings, handler] = rest.length === 2 ? rest : [{}, rest[0]];
    if (typeof handler !== "function") throw new TypeError(`the handler of ${kind} is no function`);
    if (this.#handlers.has(kind)) throw new Error(`the kind ${kind} has two handlers`);
    if (this.#supervisor !== undefined) throw new Error("the worker runs already: add handlers before");
    const { timeout, maxAttempts, concurrency, heartbeatTimeout } = settings;
    this.#kinds.push({
      kind,
      ...span("timeout", timeout),
      ...span("heartbeatTimeout", heartbeatTimeout),
      ...(maxAttempts == null ? {} : { maxAttempts: count(maxAttempts, "maxAttempts") }),
      ...(concurrency == null ? {} : { concurrency: count(concurrency, "concurrency") }),
    });
    // What a payload is, is agreed between who submits and who handles.
    this.#handlers.set(kind, { handler: handler as Handler, concurrency: concurrency ?? this.#concurrency });
    return this;
  }

  /** How many handlers run. */
  get running(): number {
    return this.#supervisor?.running ?? 0;
  }

  /**
   * Runs tasks until the worker is drained: by `drain`, by `signal`, or by SIGTERM. Resolves when what ran is finished, and
   * the server knows.
   *
   * @throws ApiError where the server refuses the worker for good: a kind's name is not allowed, say.
   */
  async run(options: RunOptions = {}): Promise<void> {
    const { signal } = options;
    if (this.#supervisor !== undefined) throw new Error("the worker runs already, or has run");
    if (this.#handlers.size === 0) throw new Error("the worker has no handlers: add one with task()");
    const logger = this.#logger();
    const supervisor = new Supervisor(this.#host(logger), this.#drainTimeoutMs, logger);
    this.#supervisor = supervisor;
    const drain = (): void => supervisor.drain();
    const interrupt = (): void => supervisor.interrupt();
    const signals = options.handleSignals === false ? [] : SIGNALS;
    for (const name of signals) process.on(name, interrupt);
    signal?.addEventListener("abort", drain, { once: true });
    if (signal?.aborted) drain();
    try {
      await supervisor.run();
    } finally {
      signal?.removeEventListener("abort", drain);
      for (const name of signals) process.off(name, interrupt);
    }
  }

  /** Takes no more tasks; `run` resolves when those that run are finished. The second time, hands back at once what runs. */
  drain(): void {
    this.#supervisor?.interrupt();
  }

  #host(logger: Logger): Host {
    const { queues, name } = this.#options;
    return {
      welcomed: (workerId) => logger.info(`forebay: connected to ${this.#url} as worker ${workerId}`),
      warn: (message) => logger.warn(message),
      url: this.#url,
      connect: this.#options,
      handlers: this.#handlers,
      gate: new Gate(this.#concurrency),
      hello: {
        name: name ?? `${hostname()}:${process.pid}`,
        queues: texts(queues, "queues"),
        kinds: this.#kinds,
        slots: this.#concurrency,
        sdk: `forebay-typescript/${VERSION}`,
      },
    };
  }

  #logger(): Logger {
    const { logger } = this.#options;
    return logger === undefined ? { ...silent, warn: (message) => console.warn(message) } : (logger ?? silent);
  }
}

function count(value: number, name: string): number {
  if (!Number.isInteger(value) || value < 1) throw new RangeError(`${name}: ${value} is no whole number above 0`);
  return value;
}
