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
  TaskProgress as TaskProgressMessage,
  WatchTaskResponse,
} from "./gen/forebay/v1/task_pb.js";
import { durationMessage, durationOf, milliseconds } from "./duration.js";
import { decodeJson, encodeJson } from "./json.js";
import type { AttemptError, NewTask, Priority, Task, TaskChange, TaskFilter, TaskProgress, TaskState } from "./model.js";

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
  const { runAt, delay, timeout } = task;
  if (runAt !== undefined && delay !== undefined) throw new TypeError("runAt and delay exclude each other");
  return create(SubmitTaskRequestSchema, {
    kind: task.kind,
    queue: task.queue ?? "",
    priority: task.priority ?? "",
    payload: encodeJson(task.payload),
    tags: [...(task.tags ?? [])],
    ...(runAt === undefined ? {} : { when: { case: "runAt" as const, value: timestamp(runAt) } }),
    ...(delay === undefined ? {} : { when: { case: "delay" as const, value: duration(milliseconds(delay, "delay")) } }),
    ...(task.maxAttempts === undefined ? {} : { maxAttempts: task.maxAttempts }),
    ...(timeout === undefined ? {} : { timeout: duration(milliseconds(timeout, "timeout")) }),
    idempotencyKey: task.idempotencyKey ?? "",
    project: task.project ?? "",
  });
}

/** Which page of which list, as a message. */
export function listing(filter: TaskFilter, pageSize: number | undefined, pageToken: string): ListTasksRequest {
  const { createdAfter, createdBefore } = filter;
  return create(ListTasksRequestSchema, {
    state: filter.state === undefined ? WireState.UNSPECIFIED : STATES[filter.state],
    queue: filter.queue ?? "",
    kind: filter.kind ?? "",
    tag: filter.tag ?? "",
    ...(createdAfter === undefined ? {} : { createdAfter: timestamp(createdAfter) }),
    ...(createdBefore === undefined ? {} : { createdBefore: timestamp(createdBefore) }),
    pageSize: pageSize ?? 0,
    pageToken,
  });
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
  };
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
export function timestamp(date: Date): Timestamp {
  const ms = date.getTime();
  if (!Number.isFinite(ms)) throw new RangeError("an invalid Date is no time");
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
