// One stream of WorkerService.Work, from Hello to its end. It runs what the server starts, and says what becomes of it.
import { create } from "@bufbuild/protobuf";
import type { MessageInitShape } from "@bufbuild/protobuf";
import type { ClientDuplexStream } from "@grpc/grpc-js";

import { Stop_Reason, WorkRequestSchema, WorkerService } from "./gen/forebay/v1/worker_pb.js";
import type {
  HelloSchema,
  Start,
  StartId,
  Stop,
  Welcome,
  WorkRequest,
  WorkResponse,
} from "./gen/forebay/v1/worker_pb.js";
import type { Handler } from "./context.js";
import { durationOf } from "./duration.js";
import { ownError } from "./failure.js";
import { PLACE_WITHIN_MS } from "./gate.js";
import type { Gate } from "./gate.js";
import type { ConnectOptions } from "./options.js";
import type { StopReason } from "./outcomes.js";
import { Channel, thrown } from "./rpc.js";
import { Run, snoozed } from "./run.js";
import type { Outcome } from "./run.js";

/** A handler, and how many of its kind run at once. */
export interface Registered {
  readonly handler: Handler;
  readonly concurrency: number;
}

/** What a session needs of its worker. */
export interface Host {
  readonly url: string;
  readonly connect: ConnectOptions;
  readonly hello: MessageInitShape<typeof HelloSchema>;
  readonly handlers: ReadonlyMap<string, Registered>;
  readonly gate: Gate;
  /** Is told by which name the server knows the worker, of each session. */
  readonly welcomed: (workerId: string) => void;
  /** Is told what is not in order. */
  readonly warn: (message: string) => void;
}

/** Why a session takes no more tasks. */
export type Ending =
  /** The server is about to end; what runs is finished. */
  | { readonly why: "drained" }
  /** The stream ended, in good order or not. */
  | { readonly why: "ended"; readonly error: unknown };

/** The server may take twice ten seconds, for the Hello and to make the worker known. */
const WELCOME_WITHIN_MS = 30_000;
const HEARTBEAT_MS = 5_000;
/** How long what tasks tell of themselves may wait to be sent, */
const FLUSH_MS = 200;
/** and this part of a heartbeat timeout, where that is sooner: handlers speak three times. */
const FLUSHES_OF_TIMEOUT = 4;
/** How long handlers may take to end once they were told to because the worker ends. */
const RELEASE_MS = 1_000;
/** How long the server may take at least to end the stream once there is nothing left to say. */
const CLOSE_MS = 10_000;
/** When to start again what found no place in time. */
const NO_PLACE_DELAY_MS = 1_000;

const STOP_REASONS: Readonly<Record<Stop_Reason, StopReason>> = {
  [Stop_Reason.UNSPECIFIED]: "cancelled",
  [Stop_Reason.CANCELLED]: "cancelled",
  [Stop_Reason.TIMED_OUT]: "timed_out",
  [Stop_Reason.SHUTDOWN]: "shutdown",
};

type Said = NonNullable<MessageInitShape<typeof WorkRequestSchema>["message"]>;

/** One stream. */
export class Session {
  /** Settles when it takes no more tasks. Never rejects. */
  readonly ending: Promise<Ending>;
  /** Settles when the stream has ended. Never rejects. */
  readonly over: Promise<void>;
  readonly #host: Host;
  readonly #channel: Channel;
  readonly #call: ClientDuplexStream<WorkRequest, WorkResponse>;
  readonly #runs = new Map<string, Run>();
  /** Those that have something to send. */
  readonly #changed = new Set<Run>();
  readonly #timers = new Set<NodeJS.Timeout>();
  #welcomedAt: number | undefined;
  /** When what is told of is sent; never where nothing is. */
  #flushAt = Number.POSITIVE_INFINITY;
  #draining = false;
  /** Until when there is time to finish what runs, once it drains. */
  #drainBy = 0;
  /** Whether that time is over: nothing is begun any more. */
  #released = false;
  #closing: NodeJS.Timeout | undefined;
  #flushing: NodeJS.Timeout | undefined;
  #isOver = false;
  #tellEnding: (ending: Ending) => void = () => {};
  #tellOver: () => void = () => {};

  constructor(host: Host) {
    this.#host = host;
    this.ending = new Promise((resolve) => (this.#tellEnding = resolve));
    this.over = new Promise((resolve) => (this.#tellOver = resolve));
    // A connection of its own: the next one goes to whichever server takes it.
    this.#channel = new Channel(host.url, host.connect, true);
    this.#call = this.#channel.duplex(WorkerService.method.work);
    this.#call.on("data", (message: WorkResponse) => this.#hear(message));
    this.#call.on("error", (error: unknown) => this.#end(thrown(error)));
    this.#call.on("end", () => this.#end(undefined));
    this.#after(WELCOME_WITHIN_MS, () => {
      if (this.#welcomedAt === undefined) this.#end(ownError("UNAVAILABLE", "the server has not answered in time"));
    });
    this.#say({ case: "hello", value: host.hello });
  }

  /** Whether the server has taken this worker. */
  get wasWelcomed(): boolean {
    return this.#welcomedAt !== undefined;
  }

  /** For how many milliseconds the server has known this worker. */
  get age(): number {
    return this.#welcomedAt === undefined ? 0 : performance.now() - this.#welcomedAt;
  }

  /** Takes no more tasks, and ends when those that run are finished, for which there is so much time. */
  drain(withinMs: number): void {
    if (this.#draining || this.#isOver) return;
    this.#draining = true;
    this.#drainBy = performance.now() + withinMs;
    if (this.#welcomedAt === undefined) this.#end(undefined);
    else {
      this.#say({ case: "drain", value: {} });
      this.#closeSoon();
    }
  }

  /** Ends what runs: handlers are told, and what does not end at once is handed back at no cost of an attempt. */
  release(): void {
    this.drain(0);
    if (this.#released || this.#isOver) return;
    this.#released = true;
    const hurried = this.#drainBy > performance.now() + CLOSE_MS;
    this.#drainBy = 0;
    if (hurried) this.#closeSoon();
    for (const run of this.#runs.values()) run.stop("shutdown");
    this.#after(RELEASE_MS, () => {
      for (const run of [...this.#runs.values()]) this.#finish(run, run.unfinished());
    });
  }

  #hear({ message }: WorkResponse): void {
    if (this.#isOver) return;
    switch (message.case) {
      case "welcome":
        return this.#welcome(message.value);
      case "start":
        return this.#start(message.value);
      case "stop":
        return this.#stop(message.value);
      case "drain":
        return this.#tellEnding({ why: "drained" });
      default:
        // Said by a later server, to those who understand it.
        return;
    }
  }

  #welcome(welcome: Welcome): void {
    this.#welcomedAt = performance.now();
    const interval = welcome.heartbeatInterval === undefined ? 0 : durationOf(welcome.heartbeatInterval);
    const timer = setInterval(() => this.#beat(), interval || HEARTBEAT_MS);
    this.#timers.add(timer);
    this.#host.welcomed(welcome.workerId);
  }

  #beat(): void {
    // A server that has not read what was said last would not read this.
    if (!this.#call.writableNeedDrain) this.#say({ case: "heartbeat", value: {} });
  }

  #start(start: Start): void {
    if (start.id === undefined) return;
    if (this.#released) {
      // It was on its way when the server was told to send no more.
      return this.#say({ case: "finish", value: { id: start.id, outcome: snoozed(0) } });
    }
    clearTimeout(this.#closing);
    const run = new Run(start, start.id, () => this.#note(run));
    this.#runs.set(keyOf(start.id), run);
    void this.#execute(run);
  }

  /** Never rejects: what a handler throws is its task's outcome. */
  async #execute(run: Run): Promise<void> {
    const { kind, signal, heartbeatTimeout = Number.POSITIVE_INFINITY } = run.context;
    const registered = this.#host.handlers.get(kind);
    if (registered === undefined) {
      const message = `this worker has no handler for ${kind}`;
      return this.#finish(run, { case: "failed", value: { message, permanent: false } });
    }
    // While it waits it says nothing.
    const withinMs = Math.min(PLACE_WITHIN_MS, heartbeatTimeout / 2);
    const leave = await this.#host.gate.enter(kind, registered.concurrency, signal, withinMs);
    if (leave === undefined) {
      return this.#finish(run, signal.aborted ? run.unfinished() : snoozed(NO_PLACE_DELAY_MS));
    }
    let outcome: Outcome;
    try {
      outcome = await run.execute(registered.handler);
    } finally {
      leave();
    }
    this.#finish(run, outcome);
  }

  #stop(stop: Stop): void {
    if (stop.id !== undefined) this.#runs.get(keyOf(stop.id))?.stop(STOP_REASONS[stop.reason] ?? "cancelled");
  }

  /** Says how a task ended, unless that was said, or nobody hears it any more. */
  #finish(run: Run, outcome: Outcome): void {
    if (!this.#runs.delete(keyOf(run.id))) return;
    this.#tell(run);
    this.#say({ case: "finish", value: { id: run.id, outcome } });
    if (this.#draining) this.#closeSoon();
  }

  #note(run: Run): void {
    if (this.#runs.get(keyOf(run.id)) !== run) return;
    this.#changed.add(run);
    const { heartbeatTimeout = Number.POSITIVE_INFINITY } = run.context;
    const waitMs = Math.min(FLUSH_MS, heartbeatTimeout / FLUSHES_OF_TIMEOUT);
    if (performance.now() + waitMs < this.#flushAt) this.#flushIn(waitMs);
  }

  #flushIn(waitMs: number): void {
    clearTimeout(this.#flushing);
    this.#flushAt = performance.now() + waitMs;
    this.#flushing = setTimeout(() => this.#flush(), waitMs);
  }

  #flush(): void {
    // What is not read by the server is not heaped up here, either: of a log its tail is kept, of progress the latest.
    if (this.#call.writableNeedDrain) return this.#flushIn(FLUSH_MS);
    this.#flushAt = Number.POSITIVE_INFINITY;
    // Those of which there is no more to say are told of together.
    const silent = [...this.#changed].filter((run) => {
      const alive = run.takeAlive();
      return !this.#tell(run) && alive;
    });
    const alive = silent.map(({ id }) => id);
    if (alive.length > 0) this.#say({ case: "heartbeat", value: { alive } });
  }

  /** Sends what was logged, and how far the task is. Tells whether there was anything. */
  #tell(run: Run): boolean {
    this.#changed.delete(run);
    const lines = run.takeLog();
    if (lines.length > 0) this.#say({ case: "logLines", value: { id: run.id, lines } });
    const progress = run.takeProgress();
    if (progress !== undefined) this.#say({ case: "progress", value: { id: run.id, ...progress } });
    return lines.length > 0 || progress !== undefined;
  }

  /** Where nothing is left to say, the server ends the stream, or in time this side does. */
  #closeSoon(): void {
    clearTimeout(this.#closing);
    if (this.#runs.size > 0) return;
    const patienceMs = Math.max(CLOSE_MS, this.#drainBy - performance.now());
    this.#closing = setTimeout(() => {
      this.#host.warn(`forebay: ${this.#host.url} has not ended the stream in time: it is broken off`);
      this.#end(undefined);
    }, patienceMs);
  }

  #say(message: Said): void {
    if (!this.#isOver) this.#call.write(create(WorkRequestSchema, { message }));
  }

  #end(error: unknown): void {
    if (this.#isOver) return;
    this.#isOver = true;
    clearTimeout(this.#closing);
    clearTimeout(this.#flushing);
    for (const timer of this.#timers) clearTimeout(timer);
    const lost = [...this.#runs.values()];
    this.#runs.clear();
    this.#changed.clear();
    for (const run of lost) run.stop("lost");
    this.#call.cancel();
    this.#channel.close();
    this.#tellEnding({ why: "ended", error });
    this.#tellOver();
  }

  #after(ms: number, then: () => void): void {
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      then();
    }, ms);
    this.#timers.add(timer);
  }
}

function keyOf(id: StartId): string {
  return `${id.taskId}#${id.fence}`;
}
