// What a handler may throw, to say what should become of its task.
import { milliseconds } from "./duration.js";
import type { Duration } from "./duration.js";

/** Thrown by a handler: another attempt is no use, the task has failed. */
export class Permanent extends Error {
  override readonly name = "Permanent";
}

/** Thrown by a handler: another attempt may help, but not before `delay` has passed. */
export class RetryAfter extends Error {
  override readonly name = "RetryAfter";
  /** How long to wait, in milliseconds. */
  readonly delay: number;

  constructor(delay: Duration, message: string, options?: ErrorOptions) {
    super(message, options);
    this.delay = milliseconds(delay, "RetryAfter");
  }
}

/** Thrown by a handler: nothing went wrong, it is too early. The task starts again later, and uses up no attempt. */
export class Snooze extends Error {
  override readonly name = "Snooze";
  /** How long to wait, in milliseconds. */
  readonly delay: number;

  constructor(delay: Duration) {
    super(`snoozed for ${delay}`);
    this.delay = milliseconds(delay, "Snooze");
  }
}

/** Why an attempt should end early. */
export type StopReason =
  /** Somebody cancelled the task. */
  | "cancelled"
  /** It took longer than its timeout. */
  | "timed_out"
  /** The server or this process is about to end. The task starts again, and uses up no attempt. */
  | "shutdown"
  /** The server was lost, and has given the task to somebody else. */
  | "lost";

const MESSAGES: Readonly<Record<StopReason, string>> = {
  cancelled: "the task was cancelled",
  timed_out: "the attempt took longer than its timeout",
  shutdown: "the worker is about to end",
  lost: "the connection was lost, and the task is started elsewhere",
};

/** The reason of `ctx.signal`, once it is aborted. */
export class TaskStopped extends Error {
  override readonly name = "TaskStopped";
  /** Why. */
  readonly reason: StopReason;

  constructor(reason: StopReason) {
    super(MESSAGES[reason]);
    this.reason = reason;
  }
}
