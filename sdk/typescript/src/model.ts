import type { Duration } from "./duration.js";
import type { ApiError } from "./errors.js";
import type { JsonValue } from "./json.js";

/**
 * Where a task stands. `succeeded`, `failed`, `cancelled` and `expired` are final; `unknown` is one that this version of
 * the package does not know.
 */
export type TaskState =
  | "scheduled"
  | "blocked"
  | "throttled"
  | "queued"
  | "running"
  | "retrying"
  | "succeeded"
  | "failed"
  | "cancelled"
  | "expired"
  | "unknown";

/** How urgent a task is. */
export type Priority = "high" | "default" | "low";

/** An attempt that did not succeed. */
export interface AttemptError {
  /** Which attempt; the first is 1. */
  readonly attempt: number;
  /** `failed`, `timed_out`, `lost`, `interrupted`, `cancelled` or `snoozed`. */
  readonly outcome: string;
  /** What went wrong. */
  readonly message: string;
  /** When. */
  readonly at: Date;
}

/** How far a task is. */
export interface TaskProgress {
  /** How much is done, from 0 to 1. */
  readonly fraction: number;
  /** What it is at, for people. */
  readonly message: string;
  /** When that was. */
  readonly at: Date;
}

/** A task. Durations are in milliseconds. */
export interface Task<Result = JsonValue> {
  readonly id: string;
  /** What it does. */
  readonly kind: string;
  readonly queue: string;
  /** Whose it is. */
  readonly project: string;
  readonly state: TaskState;
  readonly priority: Priority;
  /** The handler's input. */
  readonly payload: JsonValue;
  /** What the handler returned; `undefined` until the task succeeded. */
  readonly result: Result | undefined;
  /** The latest failure. */
  readonly error: AttemptError | undefined;
  /** The attempts that did not succeed, the latest last. */
  readonly errors: readonly AttemptError[];
  /** How many attempts were begun. */
  readonly attempt: number;
  /** How many it may have; `undefined` where the handler's setting holds. */
  readonly maxAttempts: number | undefined;
  /** How long one attempt may take; `undefined` where the handler's setting holds. */
  readonly timeout: number | undefined;
  /** How far the attempt is that runs. */
  readonly progress: TaskProgress | undefined;
  readonly tags: readonly string[];
  /** Not before this time; `undefined` where it was to run at once. */
  readonly runAt: Date | undefined;
  readonly createdAt: Date;
  readonly startedAt: Date | undefined;
  readonly finishedAt: Date | undefined;
  /** The worker that runs it, or ran it last. */
  readonly worker: string | undefined;
  /** The tail of what its latest attempt logged. */
  readonly log: string | undefined;
  /** Whether it is to be cancelled but still runs. */
  readonly cancelRequested: boolean;
}

/** What holds for a task that is submitted. */
export interface TaskOptions {
  /** Which pool of workers does it; `"default"` unless said. */
  readonly queue?: string | undefined;
  /** How urgent it is; `"default"` unless said. */
  readonly priority?: Priority | undefined;
  /** Labels to find it by: at most 16, each of 1 to 64 bytes. */
  readonly tags?: readonly string[] | undefined;
  /** Not before this time. Excludes `delay`. */
  readonly runAt?: Date | undefined;
  /** Not before this long from now. Excludes `runAt`. */
  readonly delay?: Duration | undefined;
  /** How many attempts it may have; the handler's setting unless said. */
  readonly maxAttempts?: number | undefined;
  /** How long one attempt may take; the handler's setting unless said. */
  readonly timeout?: Duration | undefined;
  /**
   * Your own name for the task, for at least 24 hours: who submits the same again gets the same task. With it, a
   * submission whose answer was lost is sent again.
   */
  readonly idempotencyKey?: string | undefined;
  /** Whose it is; `"default"` unless said. */
  readonly project?: string | undefined;
}

/** One of many tasks to submit. */
export interface NewTask extends TaskOptions {
  /** What to do. */
  readonly kind: string;
  /** The handler's input, as JSON. */
  readonly payload?: unknown;
}

/** What became of one of many submissions: `error` is `undefined` where it was accepted. */
export type SubmitResult =
  | {
      /** Which one: its place in the input, from 0. */
      readonly index: number;
      /** The task's id. It is durable. */
      readonly id: string;
      /** Where it stands. */
      readonly state: TaskState;
      readonly error?: undefined;
    }
  | {
      /** Which one: its place in the input, from 0. */
      readonly index: number;
      /** Why it was not accepted. An `UnavailableError` may leave that open. */
      readonly error: ApiError;
      readonly id?: undefined;
      readonly state?: undefined;
    };

/** Which tasks. */
export interface TaskFilter {
  readonly state?: Exclude<TaskState, "unknown"> | undefined;
  readonly queue?: string | undefined;
  readonly kind?: string | undefined;
  readonly tag?: string | undefined;
  readonly createdAfter?: Date | undefined;
  readonly createdBefore?: Date | undefined;
}

/** Some tasks of a list. */
export interface TaskPage {
  readonly tasks: readonly Task[];
  /** Where the next page begins; `undefined` on the last. */
  readonly nextPageToken: string | undefined;
}

/** A step of a task that is watched. */
export interface TaskChange<Result = JsonValue> {
  readonly state: TaskState;
  readonly attempt: number;
  /** Since when. */
  readonly at: Date;
  /** The whole task: on the first step and on a final one, at least. */
  readonly task: Task<Result> | undefined;
  /** How far it is, where that is all that changed since the step before. */
  readonly progress: TaskProgress | undefined;
  /** Names this step, to go on after it. */
  readonly cursor: string;
}

const FINAL: ReadonlySet<TaskState> = new Set<TaskState>(["succeeded", "failed", "cancelled", "expired"]);

/** Whether nothing but a retry will ever change a task. */
export function isFinal(state: TaskState): boolean {
  return FINAL.has(state);
}
