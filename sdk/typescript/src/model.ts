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

/** How a task is tried again: each part that is said overrides that of its handler. */
export interface Retry {
  /** The longest wait after the first attempt; each wait is by chance between nothing and its longest. */
  readonly base?: Duration | undefined;
  /** By how much that grows with each attempt; from 1 to 100. */
  readonly factor?: number | undefined;
  /** No wait is longer. */
  readonly cap?: Duration | undefined;
  /** The waits themselves instead, after the first attempt, the second, and so on; the last of them for all that follow. */
  readonly delays?: readonly Duration[] | undefined;
}

/** What a task must be the only one of, among the unfinished ones of its kind in its project. */
export interface Unique {
  /** A name for it; its payload unless said. */
  readonly key?: string | undefined;
  /** For how long after it was accepted others are in conflict with it even if it is finished. */
  readonly window?: Duration | undefined;
  /**
   * `"return"` answers with the task that is there, `"reject"` refuses with a `ConflictError`, `"replace"` cancels that one
   * and takes its place unless it runs; `"return"` unless said.
   */
  readonly onConflict?: OnConflict | undefined;
}

/** What happens to a submission where there is a task that it may not stand beside. */
export type OnConflict = "return" | "reject" | "replace";

/** What happens to a task where one that it waits for does not succeed. */
export type OnDependencyFailure = "cancel" | "run";

/** What a task is the only one of. */
export interface TaskUnique {
  /** A hash of its kind and key, or of its kind and payload: tasks with the same mark are in conflict. */
  readonly mark: string;
  /** Until when others are in conflict with it although it is finished. */
  readonly until: Date | undefined;
  readonly onConflict: OnConflict;
}

/** A task, or its id. */
export type TaskOrId = string | { readonly id: string };

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
  /** It expires unless it has been started by then. */
  readonly expiresAt: Date | undefined;
  /** An attempt that says nothing for so long is ended; `undefined` where the handler's setting holds. */
  readonly heartbeatTimeout: number | undefined;
  /** How it is tried again; `undefined` where that is as its handler says. */
  readonly retry: Retry | undefined;
  /** What it counts to in limits by key. */
  readonly limitKey: string | undefined;
  /** What it is the only one of. */
  readonly unique: TaskUnique | undefined;
  /** The tasks that it waits for, or waited for. */
  readonly after: readonly string[];
  /** What happens where one of those does not succeed; `undefined` where there are none. */
  readonly onDependencyFailure: OnDependencyFailure | undefined;
  /** The webhooks that hear of its end. */
  readonly notify: readonly string[];
  /** The batch that it belongs to. */
  readonly batch: string | undefined;
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
  /** It expires unless it has been started by then. */
  readonly expiresAt?: Date | undefined;
  /** It expires unless it is started so long after it was accepted, or after its `runAt`. */
  readonly scheduleToStartTimeout?: Duration | undefined;
  /** An attempt that says nothing for so long is ended; the handler's setting unless said. */
  readonly heartbeatTimeout?: Duration | undefined;
  /** How it is tried again; the handler's setting unless said. */
  readonly retry?: Retry | undefined;
  /** What it counts to in limits by key. */
  readonly limitKey?: string | undefined;
  /** What it must be the only one of; `{}` is: of all tasks with its kind and payload. */
  readonly unique?: Unique | undefined;
  /** The tasks that must be final before it is started, at most 100. */
  readonly after?: readonly TaskOrId[] | undefined;
  /** What happens where one of those does not succeed: it is cancelled, or run once all are final; `"cancel"` unless said. */
  readonly onDependencyFailure?: OnDependencyFailure | undefined;
  /** Names of the webhooks that hear of its end, at most 8. */
  readonly notify?: readonly string[] | undefined;
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

/** A limit that holds a task back. */
export interface Hold {
  /** Its name. */
  readonly limit: string;
  /** The key that is counted by itself; `undefined` where the limit goes by none. */
  readonly key: string | undefined;
  /** How many run that count to it. */
  readonly running: number;
  /** How many may. */
  readonly concurrency: number | undefined;
  /** When its rate lets the task go. */
  readonly nextAt: Date | undefined;
  /** How many that it holds back go first. */
  readonly ahead: number;
}

/** Why a task is where it is. What does not fit the reason is `undefined`. */
export interface Explanation {
  readonly id: string;
  readonly state: TaskState;
  /** The one thing that it waits for, by a stable name such as `waits_for_time` or `no_worker`. */
  readonly reason: string;
  /** The same in a sentence, for people. */
  readonly detail: string;
  /** When it is due. */
  readonly runAt: Date | undefined;
  /** The number of the attempt that comes next. */
  readonly nextAttempt: number | undefined;
  /** How many go before it. */
  readonly ahead: number | undefined;
  /** Whether these are all; where not, there may be more. */
  readonly aheadIsExact: boolean;
  /** The worker that runs it, or ran it last. */
  readonly worker: string | undefined;
  /** What that worker is called, where it is alive. */
  readonly workerName: string | undefined;
  /** The limit that holds it back. */
  readonly limit: Hold | undefined;
  /** The tasks that it waits for. */
  readonly blockedOn: readonly string[];
  /** The batch that it waits for. */
  readonly batch: string | undefined;
  /** When this was so. */
  readonly at: Date;
}

/** A queue as it was counted. What is `undefined` is not known at the moment. */
export interface Queue {
  readonly name: string;
  /** How many tasks wait for a free worker. */
  readonly ready: number | undefined;
  /** How many run. */
  readonly running: number | undefined;
  /** How many wait for a time. */
  readonly scheduled: number | undefined;
  /** Whether none of its tasks is started. */
  readonly paused: boolean | undefined;
  /** When this was counted. */
  readonly at: Date;
  /** Whether the figures are older than they should be. */
  readonly stale: boolean;
  /** Which figures are missing, and why. */
  readonly problem: string | undefined;
}

/** So many starts in such a time, evenly spaced but for a burst after a rest. */
export interface Rate {
  /** How many, from 1. */
  readonly count: number;
  /** In how long. */
  readonly per: Duration;
  /** How many may start at once after a rest; as many as `count` unless said. */
  readonly burst?: number | undefined;
}

/** Which tasks count, and how many of them may run or start. */
export interface NewLimit {
  /** Only tasks of this queue; of all unless said. */
  readonly queue?: string | undefined;
  /** Only tasks of this kind; of all unless said. */
  readonly kind?: string | undefined;
  /** Whether only tasks with a `limitKey` count, those of each key by themselves; otherwise all count together. */
  readonly byKey?: boolean | undefined;
  /** How many may run at a time, from 1. */
  readonly concurrency?: number | undefined;
  /** How many may start in a time. */
  readonly rate?: Rate | undefined;
}

/** A limit. */
export interface Limit {
  readonly name: string;
  readonly queue: string | undefined;
  readonly kind: string | undefined;
  readonly byKey: boolean;
  readonly concurrency: number | undefined;
  readonly rate: Rate | undefined;
  /** How many run that count to it, over all keys. Only where it is read by itself, and has a `concurrency`. */
  readonly running: number | undefined;
  /** How many it holds back, over all keys. Only where it is read by itself. */
  readonly waiting: number | undefined;
  readonly createdAt: Date;
  readonly updatedAt: Date;
}

/** What happens at a tick while the task of an earlier one is unfinished. */
export type Overlap = "skip" | "queue" | "allow";

/** The task that a schedule submits: without a time or a key of its own, since the tick gives these, and without others to go by. */
export type ScheduledTask = Omit<
  NewTask,
  | "runAt"
  | "delay"
  | "idempotencyKey"
  | "expiresAt"
  | "scheduleToStartTimeout"
  | "unique"
  | "after"
  | "onDependencyFailure"
>;

/** When to submit what. */
export interface NewSchedule {
  /** At which times of the wall clock: minute, hour, day of month, month, day of week; or six fields, with seconds first. */
  readonly cron: string;
  /** What is submitted at each tick. */
  readonly task: ScheduledTask;
  /** Whose wall clock: a name such as `Europe/Berlin`; `"UTC"` unless said. */
  readonly timeZone?: string | undefined;
  /** What happens at a tick while the task of an earlier one is unfinished; `"skip"` unless said. */
  readonly overlap?: Overlap | undefined;
  /** How late a tick may still be fired; a minute unless said. */
  readonly catchUp?: Duration | undefined;
  /** By how much each tick is moved at most; not at all unless said. */
  readonly jitter?: Duration | undefined;
  /** Whether it rests. */
  readonly paused?: boolean | undefined;
}

/** A schedule. Durations are in milliseconds. */
export interface Schedule {
  readonly name: string;
  readonly cron: string;
  readonly timeZone: string;
  readonly task: ScheduledTask;
  /** `undefined` where this version of the package does not know it. */
  readonly overlap: Overlap | undefined;
  readonly catchUp: number;
  readonly jitter: number;
  readonly paused: boolean;
  /** Its next ticks, the earliest first. */
  readonly next: readonly Date[];
  /** The last tick that was fired. */
  readonly lastTick: Date | undefined;
  /** The task of that tick. */
  readonly lastTaskId: string | undefined;
  readonly createdAt: Date;
  readonly updatedAt: Date;
}

const FINAL: ReadonlySet<TaskState> = new Set<TaskState>(["succeeded", "failed", "cancelled", "expired"]);

/** Whether nothing but a retry will ever change a task. */
export function isFinal(state: TaskState): boolean {
  return FINAL.has(state);
}
