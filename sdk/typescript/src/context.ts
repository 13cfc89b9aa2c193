import type { JsonValue } from "./json.js";

/** What a handler is given beside the payload. */
export interface TaskContext {
  /** The task's id, the same for all its attempts: a key for what must not happen twice. */
  readonly id: string;
  readonly kind: string;
  readonly queue: string;
  /** Whose it is. */
  readonly project: string;
  /** The number of this attempt; the first is 1. */
  readonly attempt: number;
  /** How many it may have. */
  readonly maxAttempts: number;
  /**
   * How often the task was started, this start included: a fencing token. Unlike `attempt` it grows with every start. A
   * system that remembers the highest it has seen for a task, and refuses lower ones, is safe from a worker that was
   * declared dead and woke up.
   */
  readonly fence: number;
  /** How long this attempt may take, in milliseconds. */
  readonly timeout: number;
  /** When that is over. */
  readonly deadline: Date;
  /** After how many milliseconds without a word the attempt is ended; `undefined` where it need say nothing. */
  readonly heartbeatTimeout: number | undefined;
  /** The W3C trace context to go on with. */
  readonly traceparent: string | undefined;
  /**
   * Says that the attempt should end early; its reason is a {@link TaskStopped}. Pass it on to whatever takes one. What a
   * handler returns after that still counts if it was done in time, what it throws does not.
   */
  readonly signal: AbortSignal;
  /**
   * Tells how far the task is. Call it as often as you like: it costs nothing, and what is told is about once a second.
   *
   * @param fraction - How much is done, from 0 to 1.
   * @param message - What it is at, for people; cut to 256 bytes.
   */
  readonly progress: (fraction: number, message?: string) => void;
  /**
   * Says that the attempt is alive, where it has a `heartbeatTimeout`: progress and log lines say so, too. Call it as often as
   * you like, and at least three times within that timeout. What is said is gathered for 200 ms, or for a quarter of that
   * timeout where that is less.
   */
  readonly heartbeat: () => void;
  /** Logs a line, or several. The tail of 8 KiB is kept with the task. */
  readonly log: (text: string) => void;
}

/** Runs tasks of one kind. What it returns is the result, as JSON of at most 256 KiB; `undefined` is `null`. */
export type Handler<Payload = JsonValue, Result = unknown> = (
  payload: Payload,
  ctx: TaskContext,
) => Promise<Result> | Result;
