/// <reference lib="esnext.disposable" preserve="true" />
import { create } from "@bufbuild/protobuf";
import type { DescMessage, DescMethodUnary, MessageShape } from "@bufbuild/protobuf";

import {
  CancelTaskRequestSchema,
  ExplainTaskRequestSchema,
  GetTaskRequestSchema,
  RetryTaskRequestSchema,
  TaskService,
} from "./gen/forebay/v1/task_pb.js";
import type { Task as TaskMessage } from "./gen/forebay/v1/task_pb.js";
import type { Again } from "./again.js";
import { ATTEMPTS_MAX, BEGUN_WITHIN_MS, RetryBudget, pauseAfter, sleep } from "./backoff.js";
import { explanationOf, idOf, listing, submission, taskOf } from "./convert.js";
import { milliseconds } from "./duration.js";
import type { Duration } from "./duration.js";
import { ApiError, WaitTimeoutError } from "./errors.js";
import { isTransient, isUntouched, ownError } from "./failure.js";
import type { JsonValue } from "./json.js";
import { isFinal } from "./model.js";
import type {
  Explanation,
  NewTask,
  SubmitResult,
  Task,
  TaskChange,
  TaskFilter,
  TaskOptions,
  TaskOrId,
  TaskPage,
} from "./model.js";
import type { CallOptions, ConnectOptions } from "./options.js";
import { Channel, defaultUrl } from "./rpc.js";
import { limitsOf, queuesOf, schedulesOf } from "./service-calls.js";
import type { Limits, Queues, Schedules } from "./services.js";
import { submitMany } from "./submit-many.js";
import { watch } from "./watch.js";

/** How a client calls its server. */
export interface ClientOptions extends ConnectOptions {
  /** How long a call may take, with all its attempts, where it waits for nothing; 30 seconds unless said. */
  readonly callTimeout?: Duration | undefined;
}

/** How to submit a task. */
export interface SubmitOptions extends TaskOptions, CallOptions {}

/** How to wait for a task. */
export interface WaitOptions extends CallOptions {
  /** How long, before a {@link WaitTimeoutError} says that it is not final yet; for ever unless said. */
  readonly timeout?: Duration | undefined;
}

/** How to watch a task. */
export interface WatchOptions extends CallOptions {
  /** The cursor of the last step that was seen, to go on after it. */
  readonly after?: string | undefined;
}

/** Which tasks to list. */
export interface ListOptions extends TaskFilter, CallOptions {
  /** How many to fetch at once, from 1 to 200; 50 unless said. */
  readonly pageSize?: number | undefined;
}

/** Which page of a list. */
export interface ListPageOptions extends ListOptions {
  /** The `nextPageToken` of the page before, with the same filter. */
  readonly pageToken?: string | undefined;
}

const CALL_TIMEOUT_MS = 30_000;
/** How long a read goes on while the server says that the task is not recorded yet, and how long between two reads. */
const RECORDED_WITHIN_MS = 10_000;
const LOOK_MS = 100;
const LOOK_MAX_MS = 2_000;
/** The code of the error of a server that has no place for another stream. */
const NO_PLACE = "overloaded";

/**
 * Submits tasks, and tells what became of them.
 *
 * Calls that read are tried a few times where the server cannot be reached or has no room, those that write where they
 * have surely changed nothing; {@link Client.submit} tells more. Every call takes a `signal`, and rejects with its
 * reason; what the server refuses, it rejects with an {@link ApiError}.
 */
export class Client {
  /** The server's queues. */
  readonly queues: Queues;
  /** The server's schedules. */
  readonly schedules: Schedules;
  /** The server's limits. */
  readonly limits: Limits;
  readonly #channel: Channel;
  readonly #budget = new RetryBudget();
  readonly #callTimeoutMs: number;

  /**
   * Nothing is connected yet.
   *
   * @param url - Where Forebay's gRPC API is: `http://host:port`, or `https://host:port` for TLS; the environment's
   * `FOREBAY_GRPC_URL` unless said, and `http://127.0.0.1:50051` without that. Where no port is said, it is 50051, or 443
   * with TLS.
   */
  constructor(url: string = defaultUrl(), options: ClientOptions = {}) {
    this.#channel = new Channel(url, options);
    this.#callTimeoutMs = milliseconds(options.callTimeout ?? CALL_TIMEOUT_MS, "callTimeout");
    const again: Again = (method, request, callOptions, isHarmless) => this.#again(method, request, callOptions, isHarmless);
    this.queues = queuesOf(again);
    this.schedules = schedulesOf(again);
    this.limits = limitsOf(again);
  }

  /**
   * Submits a task. It is durable once this resolves.
   *
   * With an `idempotencyKey` it is sent again where the answer is lost; without one only where it was surely not
   * accepted: an {@link UnavailableError} or {@link RequestTimeoutError} leaves it open whether it was.
   *
   * @param kind - What to do.
   * @param payload - The handler's input: anything that `JSON.stringify` takes, of at most 256 KiB.
   */
  async submit(kind: string, payload?: unknown, options: SubmitOptions = {}): Promise<Task> {
    const request = submission({ ...options, kind, payload });
    const isHarmless = options.idempotencyKey ? isTransient : isUntouched;
    const { task } = await this.#again(TaskService.method.submitTask, request, options, isHarmless);
    return told(task);
  }

  /**
   * Submits many tasks on one stream, and tells what became of each, in order. Reads the input no faster than the
   * server accepts, and no further than a thousand tasks ahead of the answers.
   *
   * A task that is refused has an `error` in its result, and the others go on. Where the stream breaks, what has no
   * answer yet is submitted again if it has an `idempotencyKey`, and has the error if not: it may have been submitted.
   * Throws where the server cannot be reached, or refuses the stream; what was not told of by then was not submitted.
   */
  submitMany(
    tasks: Iterable<NewTask> | AsyncIterable<NewTask>,
    options: CallOptions = {},
  ): AsyncGenerator<SubmitResult, void, undefined> {
    return submitMany(this.#channel, tasks, options);
  }

  /**
   * Reads a task. One that was just submitted may not be recorded yet: that is waited for.
   *
   * @throws NotFoundError where there is none of this id.
   */
  async get<Result = JsonValue>(task: TaskOrId, options: CallOptions = {}): Promise<Task<Result>> {
    const request = create(GetTaskRequestSchema, { id: idOf(task) });
    return told<Result>((await this.#recorded(TaskService.method.getTask, request, options)).task);
  }

  /**
   * Says why a task is where it is: the one thing that it waits for.
   *
   * @throws NotFoundError where there is none of this id.
   */
  async explain(task: TaskOrId, options: CallOptions = {}): Promise<Explanation> {
    const request = create(ExplainTaskRequestSchema, { id: idOf(task) });
    const { explanation } = await this.#recorded(TaskService.method.explainTask, request, options);
    if (explanation === undefined) throw ownError("INTERNAL", "the server answered without the explanation");
    return explanationOf(explanation);
  }

  /**
   * Waits until a task is final, and resolves to it: whether it succeeded is its `state`. Outages of the server are
   * waited out.
   *
   * @throws WaitTimeoutError where it is not final within `timeout`.
   */
  async wait<Result = JsonValue>(task: TaskOrId, options: WaitOptions = {}): Promise<Task<Result>> {
    const id = idOf(task);
    if (options.timeout == null) return await this.#waitFor<Result>(id, options);
    const timeoutMs = milliseconds(options.timeout, "timeout");
    const timer = AbortSignal.timeout(timeoutMs);
    const signal = options.signal === undefined ? timer : AbortSignal.any([options.signal, timer]);
    try {
      return await this.#waitFor<Result>(id, { ...options, signal });
    } catch (error) {
      if (!timer.aborted || error !== timer.reason) throw error;
      throw new WaitTimeoutError(id, timeoutMs);
    }
  }

  /** All tasks that a filter lets through, newest first. Pages are fetched as they are needed. */
  async *list(options: ListOptions = {}): AsyncGenerator<Task, void, undefined> {
    let pageToken: string | undefined;
    do {
      const page = await this.listPage({ ...options, pageToken });
      yield* page.tasks;
      pageToken = page.nextPageToken;
    } while (pageToken !== undefined);
  }

  /** One page of a list. */
  async listPage(options: ListPageOptions = {}): Promise<TaskPage> {
    const request = listing(options, options.pageSize, options.pageToken ?? "");
    const { tasks, nextPageToken } = await this.#again(TaskService.method.listTasks, request, options, isTransient);
    return { tasks: tasks.map((task) => taskOf(task)), nextPageToken: nextPageToken || undefined };
  }

  /**
   * Cancels a task. One that runs is told to stop, and is cancelled when it has.
   *
   * @throws ConflictError where it is final.
   */
  async cancel(task: TaskOrId, options: CallOptions = {}): Promise<Task> {
    const request = create(CancelTaskRequestSchema, { id: idOf(task) });
    const answer = await this.#again(TaskService.method.cancelTask, request, options, isUntouched);
    return told(answer.task);
  }

  /**
   * Brings a failed, cancelled or expired task back, with all its attempts.
   *
   * @throws ConflictError where it is in any other state.
   */
  async retry(task: TaskOrId, options: CallOptions = {}): Promise<Task> {
    const request = create(RetryTaskRequestSchema, { id: idOf(task) });
    const answer = await this.#again(TaskService.method.retryTask, request, options, isUntouched);
    return told(answer.task);
  }

  /**
   * Tells where a task stands, then each change of its state or its progress, and ends after a final state. A connection
   * that is lost is made again, and goes on where it was; states that were passed meanwhile are left out.
   */
  watch<Result = JsonValue>(
    task: TaskOrId,
    options: WatchOptions = {},
  ): AsyncGenerator<TaskChange<Result>, void, undefined> {
    return watch<Result>(this.#channel, idOf(task), options.after ?? "", options);
  }

  /** Closes the connections. Calls that are under way go on; new ones reject. */
  close(): void {
    this.#channel.close();
  }

  /** As {@link Client.close}, for `using`. */
  [Symbol.dispose](): void {
    this.close();
  }

  async #waitFor<Result>(id: string, options: CallOptions): Promise<Task<Result>> {
    let pauseMs = LOOK_MS;
    for (;;) {
      try {
        for await (const change of watch<Result>(this.#channel, id, "", options, NO_PLACE)) {
          if (isFinal(change.state)) return change.task ?? (await this.get<Result>(id, options));
        }
      } catch (error) {
        // The server has no place for another stream: then the task is read now and then.
        if (!(error instanceof ApiError) || error.code !== NO_PLACE) throw error;
      }
      const task = await this.get<Result>(id, options);
      if (isFinal(task.state)) return task;
      await sleep(pauseMs, options.signal);
      pauseMs = Math.min(pauseMs * 2, LOOK_MAX_MS);
    }
  }

  /** Reads what belongs to a task. One that was just submitted may not be recorded yet: that is waited for. */
  async #recorded<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    request: MessageShape<I>,
    options: CallOptions,
  ): Promise<MessageShape<O>> {
    const giveUpAt = performance.now() + RECORDED_WITHIN_MS;
    for (;;) {
      try {
        return await this.#again(method, request, options, isReadAgain);
      } catch (error) {
        if (!isUnrecorded(error) || performance.now() > giveUpAt) throw error;
      }
      await sleep(LOOK_MS, options.signal);
    }
  }

  /** Makes a call until it succeeds, or fails in a way that another attempt does not help or might do harm. */
  async #again<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    request: MessageShape<I>,
    options: CallOptions,
    isHarmless: (error: unknown) => error is ApiError,
  ): Promise<MessageShape<O>> {
    this.#budget.deposit();
    const [deadline, giveUpAt] = [Date.now() + this.#callTimeoutMs, performance.now() + BEGUN_WITHIN_MS];
    for (let failures = 1; ; failures += 1) {
      try {
        return await this.#channel.unary(method, request, deadline, options);
      } catch (error) {
        if (!isHarmless(error) || failures === ATTEMPTS_MAX) throw error;
        const pauseMs = pauseAfter(failures, error.retryAfter);
        const late = performance.now() + pauseMs > giveUpAt || Date.now() + pauseMs > deadline;
        if (late || !this.#budget.withdraw()) throw error;
        await sleep(pauseMs, options.signal);
      }
    }
  }
}

function isUnrecorded(error: unknown): boolean {
  return error instanceof ApiError && error.code === "not_yet_recorded";
}

/** What is not recorded yet is looked for by whoever asked. */
function isReadAgain(error: unknown): error is ApiError {
  return isTransient(error) && !isUnrecorded(error);
}

function told<Result = JsonValue>(task: TaskMessage | undefined): Task<Result> {
  if (task === undefined) throw ownError("INTERNAL", "the server answered without the task");
  return taskOf<Result>(task);
}

