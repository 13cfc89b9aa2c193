// Keeps a worker connected: one session takes tasks, and those before it finish theirs.
import { pauseAfter, sleep } from "./backoff.js";
import { ApiError } from "./errors.js";
import type { StatusName } from "./errors.js";
import type { Logger } from "./logger.js";
import { Session } from "./session.js";
import type { Ending, Host } from "./session.js";
import { describe } from "./text.js";
import { untilAborted } from "./waiting.js";

/** A session that lasted as long was a success: pauses begin anew after it. */
const STABLE_MS = 10_000;
/** How long handlers that were told to end are waited for, once all sessions are over. */
const STRAGGLE_MS = 1_000;
/** What a timer can wait for at most; where it is told to wait longer, it does not wait at all. */
const TIMER_MAX_MS = 2 ** 31 - 1;

/** What no further attempt will cure, where it is the answer to Hello. */
const FATAL: ReadonlySet<StatusName> = new Set<StatusName>([
  "INVALID_ARGUMENT",
  "UNIMPLEMENTED",
  "UNAUTHENTICATED",
  "PERMISSION_DENIED",
]);

/** Opens sessions until the worker is drained. */
export class Supervisor {
  readonly #host: Host;
  readonly #drainTimeoutMs: number;
  readonly #logger: Logger;
  readonly #sessions = new Set<Session>();
  readonly #draining = new AbortController();
  readonly #released = new AbortController();
  #mayHurry = false;

  constructor(host: Host, drainTimeoutMs: number, logger: Logger) {
    this.#host = host;
    this.#drainTimeoutMs = Math.min(drainTimeoutMs, TIMER_MAX_MS);
    this.#logger = logger;
  }

  /** How many handlers run. */
  get running(): number {
    return this.#host.gate.inside;
  }

  /** Takes no more tasks. */
  drain(): void {
    if (this.#draining.signal.aborted) return;
    this.#draining.abort();
    // One signal that both the program and the worker listen to is not a second one.
    setImmediate(() => (this.#mayHurry = true));
  }

  /** Drains; the second time, hands back at once what runs. */
  interrupt(): void {
    if (this.#mayHurry) this.#released.abort();
    this.drain();
  }

  /** Runs until it is drained, or the server refuses the worker for good. */
  async run(): Promise<void> {
    try {
      await this.#connect();
    } finally {
      await this.#finish();
    }
  }

  async #connect(): Promise<void> {
    const { signal } = this.#draining;
    let welcomed = false;
    for (let failures = 0; !signal.aborted; ) {
      const session = this.#open();
      const ending = await untilAborted(session.ending, signal);
      if (ending === undefined) return;
      const error = ending.why === "ended" ? ending.error : undefined;
      welcomed ||= session.wasWelcomed;
      // A worker that was taken once is right: what refuses it now is on its way in or out.
      if (!welcomed && error instanceof ApiError && FATAL.has(error.status)) throw error;
      failures = session.age >= STABLE_MS ? 1 : failures + 1;
      // Never at once: a server that ends has many workers.
      const pauseMs = pauseAfter(failures, error instanceof ApiError ? error.retryAfter : undefined);
      this.#tell(ending, pauseMs);
      // Where it is drained meanwhile, the loop ends by itself.
      await sleep(pauseMs, signal).catch(() => {});
    }
  }

  #open(): Session {
    const session = new Session(this.#host);
    this.#sessions.add(session);
    void session.over.then(() => this.#sessions.delete(session));
    return session;
  }

  /** Lets what runs finish, within the time there is for that. */
  async #finish(): Promise<void> {
    const sessions = [...this.#sessions];
    for (const session of sessions) session.drain(this.#drainTimeoutMs);
    const release = (): void => {
      for (const session of sessions) session.release();
    };
    const { signal } = this.#released;
    const timer = setTimeout(release, this.#drainTimeoutMs);
    signal.addEventListener("abort", release, { once: true });
    if (signal.aborted) release();
    await Promise.all(sessions.map((session) => session.over));
    clearTimeout(timer);
    const straggling = new AbortController();
    await Promise.race([this.#host.gate.empty(), sleep(STRAGGLE_MS, straggling.signal).catch(() => {})]);
    straggling.abort();
  }

  #tell(ending: Ending, pauseMs: number): void {
    const { url } = this.#host;
    const again = `connecting again in ${Math.ceil(pauseMs)} ms`;
    if (ending.why === "drained") this.#logger.info(`forebay: ${url} is about to end; ${again}`);
    else if (ending.error === undefined) this.#logger.info(`forebay: ${url} has ended the stream; ${again}`);
    else this.#logger.warn(`forebay: no connection to ${url}: ${inWords(ending.error)}; ${again}`);
  }
}

/** Of an error of ours its own words: its cause says the same in those of the transport. */
function inWords(error: unknown): string {
  return error instanceof ApiError ? error.message : describe(error);
}
