/**
 * Submits tasks to Forebay, the durable task server, and runs them.
 *
 * @packageDocumentation
 */
export { Client } from "./client.js";
export type {
  ClientOptions,
  ListOptions,
  ListPageOptions,
  SubmitOptions,
  WaitOptions,
  WatchOptions,
} from "./client.js";
export type { Handler, TaskContext } from "./context.js";
export type { Duration } from "./duration.js";
export {
  ApiError,
  ConflictError,
  ForebayError,
  IdempotencyKeyReusedError,
  InvalidRequestError,
  NotFoundError,
  OverloadedError,
  RequestTimeoutError,
  UnavailableError,
  WaitTimeoutError,
} from "./errors.js";
export type { ErrorFacts, StatusName, Violation } from "./errors.js";
export type { JsonValue } from "./json.js";
export type { Logger } from "./logger.js";
export { isFinal } from "./model.js";
export type {
  AttemptError,
  Explanation,
  Hold,
  Limit,
  NewLimit,
  NewSchedule,
  NewTask,
  OnConflict,
  OnDependencyFailure,
  Overlap,
  Priority,
  Queue,
  Rate,
  Retry,
  Schedule,
  ScheduledTask,
  SubmitResult,
  Task,
  TaskChange,
  TaskFilter,
  TaskOptions,
  TaskOrId,
  TaskPage,
  TaskProgress,
  TaskState,
  TaskUnique,
  Unique,
} from "./model.js";
export type { CallOptions, ConnectOptions, TlsOptions } from "./options.js";
export { Permanent, RetryAfter, Snooze, TaskStopped } from "./outcomes.js";
export type { StopReason } from "./outcomes.js";
export type { Limits, PagesOptions, Queues, ScheduleOptions, Schedules } from "./services.js";
export { VERSION } from "./version.js";
export { Worker } from "./worker.js";
export type { RunOptions, TaskSettings, WorkerOptions } from "./worker.js";
