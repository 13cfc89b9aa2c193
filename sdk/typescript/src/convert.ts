// Between the messages of the .proto files and the types of this package.
import { create } from "@bufbuild/protobuf";
import { DurationSchema, TimestampSchema } from "@bufbuild/protobuf/wkt";
import type { Timestamp } from "@bufbuild/protobuf/wkt";

import { ListTasksRequestSchema, SubmitTaskRequestSchema, TaskState as WireState } from "./gen/forebay/v1/task_pb.js";
import type {
  AttemptError as AttemptErrorMessage,
  ListTasksRequest,
  SubmitTaskRequest,
  Task as TaskMessage,
  TaskExplanation,
  TaskHold,
  TaskProgress as TaskProgressMessage,
  TaskRetry as TaskRetryMessage,
  TaskUnique as TaskUniqueMessage,
  WatchTaskResponse,
} from "./gen/forebay/v1/task_pb.js";
import { durationMessage, durationOf, milliseconds } from "./duration.js";
import { object, several, text, texts, whole } from "./input.js";
import { decodeJson, encodeJson } from "./json.js";
import type { Duration } from "./duration.js";
import type {
  AttemptError,
  Explanation,
  Hold,
  NewTask,
  OnConflict,
  OnDependencyFailure,
  Priority,
  Retry,
  ScheduledTask,
  Task,
  TaskChange,
  TaskFilter,
  TaskOrId,
  TaskProgress,
  TaskState,
  TaskUnique,
  Unique,
} from "./model.js";

const STATES: Readonly<Record<TaskState, WireState>> = {
  scheduled: WireState.SCHEDULED,
  blocked: WireState.BLOCKED,
  throttled: WireState.THROTTLED,
  queued: WireState.QUEUED,
  running: WireState.RUNNING,
  retrying: WireState.RETRYING,
  succeeded: WireState.SUCCEEDED,
  failed: WireState.FAILED,
  cancelled: WireState.CANCELLED,
  expired: WireState.EXPIRED,
  unknown: WireState.UNSPECIFIED,
};

const STATE_NAMES: ReadonlyMap<WireState, TaskState> = new Map(
  Object.entries(STATES).map(([name, state]) => [state, name as TaskState]),
);

/** A submission as a message. Throws for what could not be meant. */
export function submission(task: NewTask): SubmitTaskRequest {
  const { runAt, delay, retry, unique, expiresAt } = object(task, "task");
  if (runAt != null && delay != null) throw new TypeError("runAt and delay exclude each other");
  return create(SubmitTaskRequestSchema, {
    kind: text(task.kind, "kind"),
    queue: text(task.queue, "queue"),
    priority: text(task.priority, "priority"),
    payload: encodeJson(task.payload),
    tags: texts(task.tags, "tags"),
    ...(runAt == null ? {} : { when: { case: "runAt" as const, value: timestamp(runAt, "runAt") } }),
    ...(delay == null ? {} : { when: { case: "delay" as const, value: duration(milliseconds(delay, "delay")) } }),
    ...whole("maxAttempts", task.maxAttempts),
    ...span("timeout", task.timeout),
    ...span("scheduleToStartTimeout", task.scheduleToStartTimeout),
    ...span("heartbeatTimeout", task.heartbeatTimeout),
    ...(expiresAt == null ? {} : { expiresAt: timestamp(expiresAt, "expiresAt") }),
    ...(retry == null ? {} : { retry: retryMessage(object(retry, "retry")) }),
    ...(unique == null ? {} : { unique: uniqueMessage(object(unique, "unique")) }),
    limitKey: text(task.limitKey, "limitKey"),
    after: several(task.after, "after").map(idOf),
    onDependencyFailure: text(task.onDependencyFailure, "onDependencyFailure"),
    notify: texts(task.notify, "notify"),
    idempotencyKey: text(task.idempotencyKey, "idempotencyKey"),
    project: text(task.project, "project"),
  });
}

/** The id of a task. */
export function idOf(task: TaskOrId): string {
  const id: unknown = typeof task === "string" ? task : object(task, "a task, or its id,").id;
  if (typeof id !== "string") throw new TypeError("a task has an id, and what is given has none");
  return id;
}

/** A duration as a member of a message, where there is one. */
export function span<Name extends string>(
  name: Name,
  value: Duration | undefined,
): Partial<Record<Name, ReturnType<typeof duration>>> {
  if (value == null) return {};
  return { [name]: duration(milliseconds(value, name)) } as Partial<Record<Name, ReturnType<typeof duration>>>;
}

function retryMessage(retry: Retry) {
  return {
    ...span("base", retry.base),
    ...span("cap", retry.cap),
    ...(retry.factor == null ? {} : { factor: retry.factor }),
    delays: several(retry.delays, "delays").map((delay) => duration(milliseconds(delay, "delays"))),
  };
}

function uniqueMessage(unique: Unique) {
  return {
    ...(unique.key == null ? {} : { key: unique.key }),
    ...span("window", unique.window),
    onConflict: text(unique.onConflict, "onConflict"),
  };
}

/** Which page of which list, as a message. */
export function listing(filter: TaskFilter, pageSize: number | undefined, pageToken: string): ListTasksRequest {
  const { createdAfter, createdBefore } = filter;
  return create(ListTasksRequestSchema, {
    state: filter.state == null ? WireState.UNSPECIFIED : stateNumber(filter.state),
    queue: text(filter.queue, "queue"),
    kind: text(filter.kind, "kind"),
    tag: text(filter.tag, "tag"),
    ...(createdAfter == null ? {} : { createdAfter: timestamp(createdAfter, "createdAfter") }),
    ...(createdBefore == null ? {} : { createdBefore: timestamp(createdBefore, "createdBefore") }),
    ...whole("pageSize", pageSize),
    pageToken,
  });
}

/** A state to list by: what is none would list all. */
function stateNumber(state: TaskState): WireState {
  const number = STATES[state] ?? WireState.UNSPECIFIED;
  if (number === WireState.UNSPECIFIED) throw new TypeError(`state: ${String(state)} is none that a task can be in`);
  return number;
}

/** A message's task. */
export function taskOf<Result>(message: TaskMessage): Task<Result> {
  return {
    id: message.id,
    kind: message.kind,
    queue: message.queue,
    project: message.project,
    state: stateOf(message.state),
    priority: message.priority as Priority,
    payload: decodeJson(message.payload),
    result: message.result.length === 0 ? undefined : (decodeJson(message.result) as Result),
    error: message.error && attemptErrorOf(message.error),
    errors: message.errors.map(attemptErrorOf),
    attempt: message.attempt,
    maxAttempts: message.maxAttempts,
    timeout: message.timeout && durationOf(message.timeout),
    progress: message.progress && progressOf(message.progress),
    tags: message.tags,
    runAt: message.runAt && dateOf(message.runAt),
    createdAt: dateOf(message.createdAt),
    startedAt: message.startedAt && dateOf(message.startedAt),
    finishedAt: message.finishedAt && dateOf(message.finishedAt),
    worker: message.worker || undefined,
    log: message.log || undefined,
    cancelRequested: message.cancelRequested,
    expiresAt: message.expiresAt && dateOf(message.expiresAt),
    heartbeatTimeout: message.heartbeatTimeout && durationOf(message.heartbeatTimeout),
    retry: message.retry && retryOf(message.retry),
    limitKey: message.limitKey || undefined,
    unique: message.unique && uniqueOf(message.unique),
    after: message.after,
    onDependencyFailure: (message.onDependencyFailure as OnDependencyFailure) || undefined,
    notify: message.notify,
    batch: message.batch || undefined,
  };
}

/** Why a task is where it is. */
export function explanationOf(message: TaskExplanation): Explanation {
  return {
    id: message.id,
    state: stateOf(message.state),
    reason: message.reason,
    detail: message.detail,
    runAt: message.runAt && dateOf(message.runAt),
    nextAttempt: message.nextAttempt,
    ahead: message.ahead === undefined ? undefined : Number(message.ahead),
    aheadIsExact: message.aheadIsExact,
    worker: message.worker || undefined,
    workerName: message.workerName || undefined,
    limit: message.limit && holdOf(message.limit),
    blockedOn: message.blockedOn,
    batch: message.batch || undefined,
    at: dateOf(message.at),
  };
}

function holdOf(message: TaskHold): Hold {
  return {
    limit: message.limit,
    key: message.key || undefined,
    running: Number(message.running),
    concurrency: message.concurrency,
    nextAt: message.nextAt && dateOf(message.nextAt),
    ahead: Number(message.ahead),
  };
}

/** What a schedule submits. */
export function scheduledTaskOf(message: SubmitTaskRequest | undefined): ScheduledTask {
  return {
    kind: message?.kind ?? "",
    payload: message && decodeJson(message.payload),
    queue: message?.queue || undefined,
    priority: (message?.priority as Priority | undefined) || undefined,
    tags: message?.tags ?? [],
    maxAttempts: message?.maxAttempts,
    timeout: message?.timeout && durationOf(message.timeout),
    project: message?.project || undefined,
    heartbeatTimeout: message?.heartbeatTimeout && durationOf(message.heartbeatTimeout),
    retry: message?.retry && retryOf(message.retry),
    limitKey: message?.limitKey || undefined,
    notify: message?.notify ?? [],
  };
}

function retryOf(message: TaskRetryMessage): Retry {
  return {
    base: message.base && durationOf(message.base),
    factor: message.factor,
    cap: message.cap && durationOf(message.cap),
    delays: message.delays.map(durationOf),
  };
}

function uniqueOf(message: TaskUniqueMessage): TaskUnique {
  const { mark, until } = message;
  return { mark, until: until && dateOf(until), onConflict: message.onConflict as OnConflict };
}

/** A message's step of a task. */
export function changeOf<Result>(message: WatchTaskResponse): TaskChange<Result> {
  return {
    state: stateOf(message.state),
    attempt: message.attempt,
    at: dateOf(message.at),
    task: message.task && taskOf<Result>(message.task),
    progress: message.progress && progressOf(message.progress),
    cursor: message.cursor,
  };
}

/** A state by its name. */
export function stateOf(state: WireState): TaskState {
  return STATE_NAMES.get(state) ?? "unknown";
}

/** A time as a message. */
export function timestamp(date: Date, name: string): Timestamp {
  if (!(date instanceof Date)) throw new TypeError(`${name} must be a Date: ${String(date)}`);
  const ms = date.getTime();
  if (!Number.isFinite(ms)) throw new RangeError(`${name}: an invalid Date is no time`);
  const seconds = Math.floor(ms / 1_000);
  return create(TimestampSchema, { seconds: BigInt(seconds), nanos: (ms - seconds * 1_000) * 1_000_000 });
}

function duration(ms: number) {
  return create(DurationSchema, durationMessage(ms));
}

function attemptErrorOf(message: AttemptErrorMessage): AttemptError {
  return { attempt: message.attempt, outcome: message.outcome, message: message.message, at: dateOf(message.at) };
}

function progressOf(message: TaskProgressMessage): TaskProgress {
  return { fraction: message.fraction, message: message.message, at: dateOf(message.at) };
}

/** A message's time. */
export function dateOf(at: Timestamp | undefined): Date {
  return new Date(at === undefined ? Number.NaN : Number(at.seconds) * 1_000 + at.nanos / 1e6);
}
