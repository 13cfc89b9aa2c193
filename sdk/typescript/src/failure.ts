// What went wrong, from what the transport and the server say of it.
import { fromBinary } from "@bufbuild/protobuf";
import type { DescMessage, MessageShape } from "@bufbuild/protobuf";
import { anyUnpack } from "@bufbuild/protobuf/wkt";
import type { Any } from "@bufbuild/protobuf/wkt";
import type { ServiceError } from "@grpc/grpc-js";

import type { Problem } from "./gen/forebay/v1/task_pb.js";
import { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema, StatusSchema } from "./gen/google/rpc/status_pb.js";
import { durationOf } from "./duration.js";
import {
  ApiError,
  ConflictError,
  IdempotencyKeyReusedError,
  InvalidRequestError,
  NotFoundError,
  OverloadedError,
  RequestTimeoutError,
  STATUS_NAMES,
  UnavailableError,
} from "./errors.js";
import type { ErrorFacts, StatusName, Violation } from "./errors.js";
import type { TaskState } from "./model.js";

type ErrorClass = new (detail: string, facts: ErrorFacts) => ApiError;

const CLASSES: Readonly<Partial<Record<StatusName, ErrorClass>>> = {
  INVALID_ARGUMENT: InvalidRequestError,
  OUT_OF_RANGE: InvalidRequestError,
  NOT_FOUND: NotFoundError,
  ALREADY_EXISTS: IdempotencyKeyReusedError,
  FAILED_PRECONDITION: ConflictError,
  ABORTED: ConflictError,
  RESOURCE_EXHAUSTED: OverloadedError,
  UNAVAILABLE: UnavailableError,
  DEADLINE_EXCEEDED: RequestTimeoutError,
};

/** Codes that a program may want to tell apart from others of the same status. */
const APART: Readonly<Partial<Record<string, ErrorClass>>> = { unique_conflict: ConflictError };

/** The codes of Forebay's table that a `Problem`, which carries no status, is told with. */
const STATUS_BY_CODE: Readonly<Record<string, StatusName>> = {
  backlog_full: "RESOURCE_EXHAUSTED",
  body_timeout: "DEADLINE_EXCEEDED",
  broker_unavailable: "UNAVAILABLE",
  idempotency_key_reused: "ALREADY_EXISTS",
  internal: "INTERNAL",
  overloaded: "UNAVAILABLE",
  shutting_down: "UNAVAILABLE",
  store_unavailable: "UNAVAILABLE",
  unique_conflict: "ALREADY_EXISTS",
};

/** Makes the error of the class that fits its status. */
export function errorOf(detail: string, facts: ErrorFacts): ApiError {
  return new (APART[facts.code] ?? CLASSES[facts.status] ?? ApiError)(detail, facts);
}

/** An error that this side found out by itself. */
export function ownError(status: StatusName, detail: string): ApiError {
  return errorOf(detail, { code: ownCode(status, detail), status });
}

/** The error that a call ended with, with all that the server says of it. */
export function errorOfCall(error: ServiceError): ApiError {
  const status = STATUS_NAMES[error.code] ?? "UNKNOWN";
  const facts: Mutable<ErrorFacts> = { code: ownCode(status, error.details), status, cause: error };
  for (const detail of detailsOf(error)) {
    const info = unpack(detail, ErrorInfoSchema);
    if (info !== undefined) {
      facts.code = info.reason;
      facts.state = info.metadata["state"] as TaskState | undefined;
    }
    const retry = unpack(detail, RetryInfoSchema)?.retryDelay;
    if (retry !== undefined) facts.retryAfter = durationOf(retry);
    const fields = unpack(detail, BadRequestSchema)?.fieldViolations;
    if (fields !== undefined) facts.violations = fields.map(violationOf);
  }
  // What is in it was read. Where the error is printed, it is a page of bytes.
  Object.defineProperty(error, "metadata", { enumerable: false });
  return errorOf(inWords(error.details, facts), facts);
}

function inWords(detail: string, { code, status }: ErrorFacts): string {
  switch (code) {
    case "not_connected":
      return detail.replace(/^No connection established\. Last error: (?:Error: )?/, "cannot connect: ").replace(NO_NOTE, "");
    case "unimplemented":
      return `there is no gRPC API of Forebay, whose port is 50051 unless set otherwise: ${detail}`;
    default:
      return detail || `the server answered ${status}`;
  }
}

/** How the transport ends when it has no more to say. */
const NO_NOTE = /\.? Resolution note: $/;

/** The error that is told of one of many. */
export function errorOfProblem(problem: Problem): ApiError {
  // All that is not in the table is a mistake in the request.
  const status = STATUS_BY_CODE[problem.code] ?? "INVALID_ARGUMENT";
  return errorOf(problem.detail, {
    code: problem.code,
    status,
    violations: problem.violations.map(violationOf),
    retryAfter: problem.retryAfter && durationOf(problem.retryAfter),
  });
}

function violationOf({ field, description }: Violation): Violation {
  return { field, description };
}

/** What an error is called of which no server of Forebay has told. */
function ownCode(status: StatusName, detail: string): string {
  switch (status) {
    case "UNAVAILABLE":
      // The words of the transport: nothing says it otherwise. Where they change, a call is tried once, which is safe.
      return /^(No connection established|Name resolution failed)/.test(detail) ? "not_connected" : "unreachable";
    default:
      return status.toLowerCase();
  }
}

/** Whether another time may be better. */
export function isTransient(error: unknown): error is ApiError {
  return error instanceof UnavailableError || error instanceof OverloadedError;
}

/** Whether a stream may have been cut by what is between here and the server. */
export function isReset(error: unknown): error is ApiError {
  return error instanceof ApiError && ["CANCELLED", "UNKNOWN", "INTERNAL"].includes(error.status);
}

const REFUSED_CODES: ReadonlySet<string> = new Set(["not_connected", "overloaded", "backlog_full", "shutting_down"]);

/** Whether a call that failed has surely changed nothing, and another time may be better. */
export function isUntouched(error: unknown): error is ApiError {
  return isTransient(error) && REFUSED_CODES.has(error.code);
}

type Mutable<T> = { -readonly [K in keyof T]: T[K] };

function detailsOf(error: ServiceError): readonly Any[] {
  const trailer: unknown = error.metadata?.get("grpc-status-details-bin")[0];
  if (!(trailer instanceof Uint8Array)) return [];
  try {
    return fromBinary(StatusSchema, trailer).details;
  } catch {
    // Whoever made it speaks another language; the status itself says enough.
    return [];
  }
}

function unpack<Desc extends DescMessage>(any: Any, schema: Desc): MessageShape<Desc> | undefined {
  try {
    return anyUnpack(any, schema);
  } catch {
    return undefined;
  }
}
