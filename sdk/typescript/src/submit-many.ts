// Submits many tasks on one stream, with an answer for each. Streams break, and servers end them: what was not answered
// is sent again on the next one, where that cannot make a second task of it.
import type { ClientDuplexStream } from "@grpc/grpc-js";

import { TaskService } from "./gen/forebay/v1/task_pb.js";
import type { SubmitTaskRequest, SubmitTasksResponse } from "./gen/forebay/v1/task_pb.js";
import { ATTEMPTS_MAX, pauseAfter, sleep } from "./backoff.js";
import { stateOf, submission } from "./convert.js";
import { ApiError } from "./errors.js";
import { errorOfProblem, isReset, isTransient, isUntouched, ownError } from "./failure.js";
import type { NewTask, SubmitResult } from "./model.js";
import type { CallOptions } from "./options.js";
import { answersOf } from "./rpc.js";
import type { Channel } from "./rpc.js";
import { unlessAborted, untilAborted } from "./waiting.js";

/** How many are under way at most: read from the input, and not answered. */
const WINDOW = 1_000;

/** A server ends the stream on which a message of more than 4 MiB comes, with all that is on it. */
const PAYLOAD_BYTES_MAX = 4_000_000;

interface Item {
  readonly index: number;
  readonly request: SubmitTaskRequest;
}

type Upload = ClientDuplexStream<SubmitTaskRequest, SubmitTasksResponse>;

/** Submits each, and tells what became of each, in order. */
export async function* submitMany(
  channel: Channel,
  tasks: Iterable<NewTask> | AsyncIterable<NewTask>,
  options: CallOptions,
): AsyncGenerator<SubmitResult, void, undefined> {
  const { signal } = options;
  const source = new Source(tasks);
  let unanswered: Item[] = [];
  let failures = 0;
  try {
    while (unanswered.length > 0 || (await unlessAborted(source.peek(), signal)) !== undefined) {
      const stream = new Stream(channel, source, unanswered, options);
      unanswered = [];
      // What a server has not answered when it ends a stream in good order, it has not taken.
      let error: ApiError = ownError("UNAVAILABLE", "the server ended the stream before it had answered");
      let [untouched, broken] = [true, true];
      try {
        for await (const result of stream.results()) {
          failures = 0;
          yield result;
        }
        if (stream.pending.length === 0) continue;
      } catch (thrown) {
        if (!(thrown instanceof ApiError)) throw thrown;
        error = thrown;
        untouched = isUntouched(thrown);
        broken = isTransient(thrown) || isReset(thrown);
      }
      failures += 1;
      const enough = !broken || failures >= ATTEMPTS_MAX;
      for (const item of stream.pending) {
        const harmless = untouched || item.request.idempotencyKey !== "";
        if (harmless && !enough) unanswered.push(item);
        else yield { index: item.index, error };
      }
      if (enough) throw error;
      await sleep(pauseAfter(failures, error.retryAfter), signal);
    }
  } finally {
    source.close();
  }
}

/** What is to be submitted, with a look at the next. */
class Source {
  readonly #tasks: Iterator<NewTask> | AsyncIterator<NewTask>;
  #next: Promise<Item | undefined> | undefined;
  #index = 0;
  #ended = false;

  constructor(tasks: Iterable<NewTask> | AsyncIterable<NewTask>) {
    this.#tasks = Symbol.asyncIterator in tasks ? tasks[Symbol.asyncIterator]() : tasks[Symbol.iterator]();
  }

  /** The next, which stays the next; `undefined` after the last. */
  peek(): Promise<Item | undefined> {
    this.#next ??= this.#read();
    return this.#next;
  }

  /** It was taken. */
  take(): void {
    if (!this.#ended) this.#next = undefined;
  }

  /** Lets go of the input, and does not wait for it: it may be waiting for something itself. */
  close(): void {
    if (this.#ended) return;
    const closed = async (): Promise<unknown> => this.#tasks.return?.();
    closed().catch(() => {});
  }

  async #read(): Promise<Item | undefined> {
    const next = await this.#tasks.next();
    if (next.done === true) {
      this.#ended = true;
      return undefined;
    }
    const item = { index: this.#index, request: submission(next.value) };
    const size = item.request.payload.length;
    if (size > PAYLOAD_BYTES_MAX) {
      throw new RangeError(`task ${item.index} has a payload of ${size} bytes, of which ${PAYLOAD_BYTES_MAX} can be sent`);
    }
    this.#index += 1;
    return item;
  }
}

/** One stream. */
class Stream {
  /** Sent, or to be sent, and not answered. */
  readonly pending: Item[];
  readonly #call: Upload;
  readonly #source: Source;
  readonly #signal: AbortSignal | undefined;
  readonly #over = new AbortController();
  #roomCame: (() => void) | undefined;
  #failure: { readonly error: unknown } | undefined;

  constructor(channel: Channel, source: Source, first: readonly Item[], options: CallOptions) {
    this.pending = [...first];
    this.#source = source;
    this.#signal = options.signal;
    this.#call = channel.duplex(TaskService.method.submitTasks, options);
  }

  async *results(): AsyncGenerator<SubmitResult, void, undefined> {
    const sending = this.#send(this.pending.slice());
    try {
      for await (const answer of answersOf<SubmitTasksResponse>(this.#call, this.#signal)) {
        const item = this.pending[0];
        if (item === undefined) throw ownError("INTERNAL", "the server answered more than it was asked");
        if (answer.result.case === "problem" && answer.result.value.code === "shutting_down") {
          // It stands for this one and all after it: another server takes them.
          throw errorOfProblem(answer.result.value);
        }
        this.pending.shift();
        this.#roomCame?.();
        yield resultOf(item.index, answer);
      }
    } finally {
      this.#over.abort();
      await sending;
    }
    // Where it has not answered all that was sent, that comes first, on another stream, which finds the same mistake.
    if (this.#failure !== undefined && this.pending.length === 0) throw this.#failure.error;
  }

  /** Sends what there is, as fast as it is answered. */
  async #send(first: readonly Item[]): Promise<void> {
    try {
      for (const item of first) await this.#write(item.request);
      for (;;) {
        await this.#room();
        const item = await this.#unlessOver(this.#source.peek());
        if (this.#over.signal.aborted) return;
        if (item === undefined) break;
        this.#source.take();
        this.pending.push(item);
        await this.#write(item.request);
      }
      this.#call.end();
    } catch (error) {
      // The input is at fault. What was sent is still answered, and then the caller is told.
      this.#failure = { error };
      this.#call.end();
    }
  }

  async #room(): Promise<void> {
    while (this.pending.length >= WINDOW && !this.#over.signal.aborted) {
      await this.#unlessOver(new Promise<void>((resolve) => (this.#roomCame = resolve)));
    }
  }

  async #write(request: SubmitTaskRequest): Promise<void> {
    if (this.#over.signal.aborted || this.#call.write(request)) return;
    await this.#unlessOver(new Promise<void>((resolve) => void this.#call.once("drain", resolve)));
  }

  /** Waits for something, but no longer than the stream lasts. */
  #unlessOver<T>(promise: Promise<T>): Promise<T | undefined> {
    return untilAborted(promise, this.#over.signal);
  }
}

function resultOf(index: number, answer: SubmitTasksResponse): SubmitResult {
  const { result } = answer;
  switch (result.case) {
    case "accepted":
      return { index, id: result.value.id, state: stateOf(result.value.state) };
    case "problem":
      return { index, error: errorOfProblem(result.value) };
    default:
      return { index, error: ownError("INTERNAL", "the server answered nothing") };
  }
}
