// A server of our own: WorkerService and TaskService as a test wants them, over real gRPC.
import { create } from "@bufbuild/protobuf";
import type { DescMethod, DescService, MessageInitShape } from "@bufbuild/protobuf";
import * as grpc from "@grpc/grpc-js";

import { TaskService } from "../dist/gen/forebay/v1/task_pb.js";
import type {
  GetTaskRequest,
  GetTaskResponse,
  SubmitTaskRequest,
  SubmitTaskResponse,
  SubmitTasksResponse,
  WatchTaskRequest,
  WatchTaskResponse,
} from "../dist/gen/forebay/v1/task_pb.js";
import { StartSchema, WorkResponseSchema, WorkerService } from "../dist/gen/forebay/v1/worker_pb.js";
import type { Hello, WorkRequest, WorkResponse } from "../dist/gen/forebay/v1/worker_pb.js";
import { path, reader, writer } from "../dist/rpc.js";
import { until } from "./waiting.js";

/** How calls of TaskService are answered; those that are left out are not implemented. */
export interface TaskHandlers {
  submitTask?: grpc.handleUnaryCall<SubmitTaskRequest, SubmitTaskResponse>;
  getTask?: grpc.handleUnaryCall<GetTaskRequest, GetTaskResponse>;
  submitTasks?: grpc.handleBidiStreamingCall<SubmitTaskRequest, SubmitTasksResponse>;
  watchTask?: grpc.handleServerStreamingCall<WatchTaskRequest, WatchTaskResponse>;
}

type Said = WorkRequest["message"];
type SaidByCase = { [Each in Said as Each["case"] extends string ? Each["case"] : never]: Each["value"] };
type SaidCase = keyof SaidByCase;

/** What a test says of a task that is started. */
export interface StartFacts {
  readonly id?: { readonly taskId: string; readonly fence: number };
  readonly kind?: string;
  readonly queue?: string;
  readonly project?: string;
  readonly payload?: Uint8Array;
  readonly attempt?: number;
  readonly maxAttempts?: number;
  readonly timeout?: { readonly seconds: bigint };
  readonly heartbeatTimeout?: { readonly seconds: bigint; readonly nanos: number };
  readonly traceparent?: string;
}

/** The server's end of one worker's stream. */
export class Peer {
  /** All that the worker has said, the earliest first. */
  readonly said: Said[] = [];
  /** Whether the stream is over, from the server's side or the worker's. */
  closed = false;
  readonly #call: grpc.ServerDuplexStream<WorkRequest, WorkResponse>;
  #read = 0;

  constructor(call: grpc.ServerDuplexStream<WorkRequest, WorkResponse>) {
    this.#call = call;
    call.on("data", (request: WorkRequest) => this.said.push(request.message));
    call.on("end", () => (this.closed = true));
    call.on("cancelled", () => (this.closed = true));
    call.on("error", () => (this.closed = true));
  }

  /** The next that is said of this sort; what is of another is passed over. */
  async next<Case extends SaidCase>(sort: Case): Promise<NonNullable<SaidByCase[Case]>> {
    const found = await until(`the worker says ${sort}`, () => {
      while (this.#read < this.said.length) {
        const said = this.said[this.#read++];
        if (said?.case === sort) return said;
      }
      return undefined;
    });
    return found.value as NonNullable<SaidByCase[Case]>;
  }

  /** How often something of this sort was said. */
  count(sort: SaidCase): number {
    return this.said.filter((said) => said.case === sort).length;
  }

  say(message: NonNullable<MessageInitShape<typeof WorkResponseSchema>["message"]>): void {
    this.#call.write(create(WorkResponseSchema, { message }));
  }

  /** Welcomes the worker, after its Hello. */
  async welcome(heartbeatMs = 60_000): Promise<Hello> {
    const hello = await this.next("hello");
    const heartbeatInterval = { seconds: 0n, nanos: heartbeatMs * 1_000_000 };
    if (heartbeatMs >= 1_000) Object.assign(heartbeatInterval, { seconds: BigInt(heartbeatMs / 1_000), nanos: 0 });
    this.say({ case: "welcome", value: { workerId: "w", heartbeatInterval, silenceMax: { seconds: 120n } } });
    return hello;
  }

  start(taskId: string, start: StartFacts = {}): void {
    const payload = new TextEncoder().encode("null");
    const timeout = { seconds: 300n };
    const id = { taskId, fence: 1 };
    const base = { id, kind: "test", queue: "default", project: "default", attempt: 1, maxAttempts: 5 };
    this.say({ case: "start", value: create(StartSchema, { ...base, payload, timeout, ...start }) });
  }

  /** Ends the stream in good order, or with an error. */
  end(error?: Partial<grpc.StatusObject>): void {
    if (error === undefined) this.#call.end();
    else this.#call.emit("error", error);
  }
}

/** A server. */
export class Fake {
  readonly url: string;
  readonly peers: Peer[] = [];
  readonly #server: grpc.Server;
  #taken = 0;

  private constructor(server: grpc.Server, port: number, peers: Peer[]) {
    this.#server = server;
    this.url = `http://127.0.0.1:${port}`;
    this.peers = peers;
  }

  /** Starts one, on a port of its own unless said. */
  static async start(
    tasks: TaskHandlers = {},
    port = 0,
    credentials = grpc.ServerCredentials.createInsecure(),
  ): Promise<Fake> {
    const server = new grpc.Server();
    const peers: Peer[] = [];
    const work: grpc.handleBidiStreamingCall<WorkRequest, WorkResponse> = (call) => peers.push(new Peer(call));
    server.addService(definitionOf(WorkerService), { work } as grpc.UntypedServiceImplementation);
    server.addService(definitionOf(TaskService), { ...tasks } as grpc.UntypedServiceImplementation);
    const bound = await new Promise<number>((resolve, reject) => {
      server.bindAsync(`127.0.0.1:${port}`, credentials, (error, at) => (error === null ? resolve(at) : reject(error)));
    });
    return new Fake(server, bound, peers);
  }

  get port(): number {
    return Number(new URL(this.url).port);
  }

  /** The next worker that connects. */
  async peer(): Promise<Peer> {
    const peer = await until("a worker connects", () => this.peers[this.#taken]);
    this.#taken += 1;
    return peer;
  }

  /** Ends at once, and breaks all connections. */
  stop(): void {
    this.#server.forceShutdown();
  }
}

function definitionOf(service: DescService): grpc.ServiceDefinition {
  return Object.fromEntries(service.methods.map((method) => [method.localName, methodDefinitionOf(method)]));
}

function methodDefinitionOf(method: DescMethod): grpc.MethodDefinition<unknown, unknown> {
  return {
    path: path(method),
    requestStream: method.methodKind === "client_streaming" || method.methodKind === "bidi_streaming",
    responseStream: method.methodKind === "server_streaming" || method.methodKind === "bidi_streaming",
    requestSerialize: writer(method.input) as (message: unknown) => Buffer,
    requestDeserialize: reader(method.input),
    responseSerialize: writer(method.output) as (message: unknown) => Buffer,
    responseDeserialize: reader(method.output),
  };
}
