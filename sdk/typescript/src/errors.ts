import type { TaskState } from "./model.js";

/** The gRPC statuses by their numbers. */
export const STATUS_NAMES = [
  "OK",
  "CANCELLED",
  "UNKNOWN",
  "INVALID_ARGUMENT",
  "DEADLINE_EXCEEDED",
  "NOT_FOUND",
  "ALREADY_EXISTS",
  "PERMISSION_DENIED",
  "RESOURCE_EXHAUSTED",
  "FAILED_PRECONDITION",
  "ABORTED",
  "OUT_OF_RANGE",
  "UNIMPLEMENTED",
  "INTERNAL",
  "UNAVAILABLE",
  "DATA_LOSS",
  "UNAUTHENTICATED",
] as const;

/** The gRPC status of an error. */
export type StatusName = (typeof STATUS_NAMES)[number];

/** One field at fault. */
export interface Violation {
  /** Which: `tags[1]`, say. */
  readonly field: string;
  /** What is wrong and what is allowed. */
  readonly description: string;
}

/** What an {@link ApiError} tells beside its detail. */
export interface ErrorFacts {
  readonly code: string;
  readonly status: StatusName;
  readonly violations?: readonly Violation[] | undefined;
  readonly retryAfter?: number | undefined;
  readonly state?: TaskState | undefined;
  readonly cause?: unknown;
}

/** Above every error that this package makes by itself. */
export class ForebayError extends Error {
  // Each class has a name of its own type, so that they are told apart by types as they are by instanceof.
  override readonly name: string = "ForebayError";
}

/** A call did not succeed. The classes below are what a program may want to tell apart. */
export class ApiError extends ForebayError {
  override readonly name: string = "ApiError";
  /**
   * The stable name of the error, such as `task_not_found`. Where no server of Forebay has answered: `not_connected`
   * (nothing was sent), `unreachable` (it broke off), or the name of gRPC's status, such as `deadline_exceeded`.
   */
  readonly code: string;
  /** What went wrong this time. */
  readonly detail: string;
  /** The gRPC status. */
  readonly status: StatusName;
  /** The fields at fault. */
  readonly violations: readonly Violation[];
  /** How many milliseconds to wait before trying again; `undefined` where that is no use, or nobody knows. */
  readonly retryAfter: number | undefined;
  /** The task's state, where that is what forbids it. */
  readonly state: TaskState | undefined;

  constructor(detail: string, facts: ErrorFacts) {
    const violations = facts.violations ?? [];
    // The detail tells a single field at fault already.
    const listed = violations.length > 1 ? violations.map((each) => `\n  ${each.field}: ${each.description}`) : [];
    super(`${detail} (${facts.code})${listed.join("")}`, facts.cause === undefined ? {} : { cause: facts.cause });
    this.code = facts.code;
    this.detail = detail;
    this.status = facts.status;
    this.violations = violations;
    this.retryAfter = facts.retryAfter;
    this.state = facts.state;
  }
}

/** The request is at fault, and will be again. `violations` names each field. */
export class InvalidRequestError extends ApiError {
  override readonly name = "InvalidRequestError";
}

/** There is no such task, queue, schedule or limit. */
export class NotFoundError extends ApiError {
  override readonly name = "NotFoundError";
}

/** The task's `state` does not allow this; or, where the code is `unique_conflict`, there is a task that the new one may not stand beside. */
export class ConflictError extends ApiError {
  override readonly name = "ConflictError";
}

/** The idempotency key is in use with another request. */
export class IdempotencyKeyReusedError extends ApiError {
  override readonly name = "IdempotencyKeyReusedError";
}

/** There is no room for more tasks at the moment. Nothing was accepted: wait for `retryAfter`, and try again. */
export class OverloadedError extends ApiError {
  override readonly name = "OverloadedError";
}

/** Nobody can serve this at the moment: no server, or one whose broker or store is away. */
export class UnavailableError extends ApiError {
  override readonly name = "UnavailableError";
}

/** No answer came in time. */
export class RequestTimeoutError extends ApiError {
  override readonly name = "RequestTimeoutError";
}

/** The task was not final within the time that was given to it. It goes on. */
export class WaitTimeoutError extends ForebayError {
  override readonly name = "WaitTimeoutError";
  /** Which task. */
  readonly taskId: string;
  /** How long it was waited for, in milliseconds. */
  readonly timeout: number;

  constructor(taskId: string, timeout: number) {
    super(`the task ${taskId} was not final within ${timeout} ms`);
    this.taskId = taskId;
    this.timeout = timeout;
  }
}
