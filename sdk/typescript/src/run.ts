// One start of one task: what its handler is given, and what is said of it.
import { create } from "@bufbuild/protobuf";
import type { MessageInitShape } from "@bufbuild/protobuf";

import type { FinishSchema, Start, StartId } from "./gen/forebay/v1/worker_pb.js";
import { StartIdSchema } from "./gen/forebay/v1/worker_pb.js";
import type { Handler, TaskContext } from "./context.js";
import { durationMessage, durationOf } from "./duration.js";
import { decodeJson, encodeJson } from "./json.js";
import { Permanent, RetryAfter, Snooze, TaskStopped } from "./outcomes.js";
import type { StopReason } from "./outcomes.js";
import { describe, headOf, tailOf } from "./text.js";

/** How an attempt ended. */
export type Outcome = NonNullable<MessageInitShape<typeof FinishSchema>["outcome"]>;

const RESULT_BYTES_MAX = 256 * 1024;
const LOG_BYTES_MAX = 8 * 1024;
const PROGRESS_BYTES_MAX = 256;
const MESSAGE_BYTES_MAX = 4 * 1024;

/** One start of one task. */
export class Run {
  /** Names it. */
  readonly id: StartId;
  readonly context: TaskContext;
  readonly #payload: Uint8Array;
  readonly #stop = new AbortController();
  /** Logged and not sent. */
  #log = "";
  #progress: { readonly fraction: number; readonly message: string } | undefined;
  #alive = false;

  /** `changed` is called when there is something to send. */
  constructor(start: Start, id: StartId, changed: () => void) {
    this.id = create(StartIdSchema, { taskId: id.taskId, fence: id.fence });
    this.#payload = start.payload;
    const timeout = start.timeout === undefined ? 0 : durationOf(start.timeout);
    this.context = {
      id: id.taskId,
      kind: start.kind,
      queue: start.queue,
      project: start.project,
      attempt: start.attempt,
      maxAttempts: start.maxAttempts,
      fence: id.fence,
      timeout,
      // By this machine's clock, which need not agree with the server's.
      deadline: new Date(Date.now() + timeout),
      heartbeatTimeout: start.heartbeatTimeout && durationOf(start.heartbeatTimeout),
      traceparent: start.traceparent || undefined,
      signal: this.#stop.signal,
      progress: (fraction, message = "") => {
        const clamped = Math.min(Math.max(Number.isNaN(fraction) ? 0 : fraction, 0), 1);
        this.#progress = { fraction: clamped, message: headOf(message, PROGRESS_BYTES_MAX) };
        changed();
      },
      heartbeat: () => {
        this.#alive = true;
        changed();
      },
      log: (text) => {
        this.#log = tailOf(`${this.#log}${text}\n`, LOG_BYTES_MAX);
        changed();
      },
    };
  }

  /** Says that it should end. */
  stop(reason: StopReason): void {
    this.#stop.abort(new TaskStopped(reason));
  }

  /** Runs the handler. Never rejects. */
  async execute(handler: Handler): Promise<Outcome> {
    try {
      const result = await handler(decodeJson(this.#payload), this.context);
      return succeeded(result);
    } catch (error) {
      return this.#failed(error);
    }
  }

  /** What is said of it where its handler was not run, or does not end. */
  unfinished(): Outcome {
    const { signal } = this.#stop;
    return signal.aborted ? this.#failed(signal.reason) : snoozed(0);
  }

  /** The lines that were logged since the last time. */
  takeLog(): string[] {
    const log = this.#log;
    this.#log = "";
    return log === "" ? [] : log.replace(/\n$/, "").split("\n");
  }

  /** How far it is, where that was said since the last time. */
  takeProgress(): { readonly fraction: number; readonly message: string } | undefined {
    const progress = this.#progress;
    this.#progress = undefined;
    return progress;
  }

  /** Whether it has said that it is alive since the last time. */
  takeAlive(): boolean {
    const alive = this.#alive;
    this.#alive = false;
    return alive;
  }

  #failed(error: unknown): Outcome {
    try {
      return this.#judge(error);
    } catch {
      // Anything may be thrown, even what throws when it is looked at.
      return failed("the handler threw what cannot be put into words", false);
    }
  }

  #judge(error: unknown): Outcome {
    const { signal } = this.#stop;
    if (signal.aborted && signal.reason instanceof TaskStopped && signal.reason.reason === "shutdown") {
      // So it is given back: it starts again at once, elsewhere.
      return snoozed(0);
    }
    if (error instanceof Snooze) return snoozed(error.delay);
    if (error instanceof Permanent) return failed(error.message, true);
    if (error instanceof RetryAfter) return failed(error.message, false, error.delay);
    if (error instanceof Error && error.stack !== undefined && !signal.aborted) this.context.log(error.stack);
    return failed(describe(error), false);
  }
}

function succeeded(result: unknown): Outcome {
  let text: Uint8Array;
  try {
    text = encodeJson(result);
  } catch (error) {
    return failed(`the result cannot be said in JSON: ${describe(error)}`, true);
  }
  if (text.length > RESULT_BYTES_MAX) {
    const advice = "store it elsewhere and return a reference";
    return failed(`the result has ${text.length} bytes, and may have ${RESULT_BYTES_MAX}: ${advice}`, true);
  }
  return { case: "succeeded", value: { result: text } };
}

function failed(message: string, permanent: boolean, retryAfterMs?: number): Outcome {
  const retryAfter = retryAfterMs === undefined ? {} : { retryAfter: durationMessage(retryAfterMs) };
  return { case: "failed", value: { message: headOf(String(message), MESSAGE_BYTES_MAX), permanent, ...retryAfter } };
}

/** It starts again after so long, and uses up no attempt. */
export function snoozed(delayMs: number): Outcome {
  return { case: "snoozed", value: { delay: durationMessage(delayMs) } };
}
