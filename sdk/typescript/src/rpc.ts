// Calls over gRPC: promises and iterators that an AbortSignal ends, and errors of our own classes.
import { fromBinary, toBinary } from "@bufbuild/protobuf";
import type {
  DescMessage,
  DescMethod,
  DescMethodBiDiStreaming,
  DescMethodServerStreaming,
  DescMethodUnary,
  MessageShape,
} from "@bufbuild/protobuf";
import * as grpc from "@grpc/grpc-js";

import { errorOfCall } from "./failure.js";
import type { CallOptions, ConnectOptions, TlsOptions } from "./options.js";
import { VERSION } from "./version.js";

interface Address {
  readonly target: string;
  readonly secure: boolean;
}

const DEFAULT_URL = "http://127.0.0.1:50051";
const DEFAULT_PORT = "50051";
/** The largest page of a list: 200 tasks, each with a payload and a result of 256 KiB, and what belongs to them. */
const MESSAGE_BYTES_MAX = 128 * 1024 * 1024;

/** Where a server is, when nobody says. */
export function defaultUrl(): string {
  return process.env["FOREBAY_GRPC_URL"] || DEFAULT_URL;
}

/** Reads `http://host:port`, `https://host:port` or `host:port`, for a connection with `tls` where that is given. */
export function addressOf(url: string, tls?: TlsOptions): Address {
  const text = url.includes("://") ? url.trim() : `http://${url.trim()}`;
  const read = URL.canParse(text) ? new URL(text) : undefined;
  if (read !== undefined && (read.username || read.password || read.search || read.hash)) {
    // It is not repeated: it may be secret.
    throw new TypeError("the URL must have neither user, query nor fragment: give tls or metadata instead");
  }
  const secure = read?.protocol === "https:";
  if (read === undefined || (!secure && read.protocol !== "http:") || read.hostname === "" || read.pathname !== "/") {
    throw new TypeError(`${url} is no address of a gRPC server, such as ${DEFAULT_URL}`);
  }
  if (tls !== undefined && !secure) throw new TypeError(`tls needs a URL that begins with https://: ${url}`);
  return { target: `${read.hostname}:${read.port || (secure ? "443" : plainPort(text))}`, secure };
}

/** The port of an `http:` URL where that is told as none: 80 if it says so, which a URL only keeps of another scheme. */
function plainPort(text: string): string {
  return new URL(text.replace(/^http:/i, "https:")).port || DEFAULT_PORT;
}

/** Connections to one server. Connects at the first call, and again where that is lost. */
export class Channel {
  /** The server's address. */
  readonly url: string;
  readonly #client: grpc.Client;
  readonly #metadata: Readonly<Record<string, string>>;

  /** With `alone`, this channel shares its connection with no other. */
  constructor(url: string, options: ConnectOptions, alone = false) {
    const { target, secure } = addressOf(url, options.tls);
    this.url = url;
    this.#metadata = options.metadata ?? {};
    this.#client = new grpc.Client(target, secure ? tls(options.tls) : grpc.credentials.createInsecure(), {
      "grpc.primary_user_agent": `forebay-typescript/${VERSION}`,
      "grpc.initial_reconnect_backoff_ms": 100,
      "grpc.max_reconnect_backoff_ms": 5_000,
      // A connection that is dead without a word is found out while a call is under way.
      "grpc.keepalive_time_ms": 10_000,
      "grpc.keepalive_timeout_ms": 5_000,
      "grpc.max_receive_message_length": MESSAGE_BYTES_MAX,
      ...(alone ? { "grpc.use_local_subchannel_pool": 1 } : {}),
    });
  }

  /** One request, one answer. */
  unary<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    request: MessageShape<I>,
    deadline: number,
    options: CallOptions,
  ): Promise<MessageShape<O>> {
    const { signal } = options;
    return new Promise((resolve, reject) => {
      signal?.throwIfAborted();
      const call = this.#client.makeUnaryRequest<MessageShape<I>, MessageShape<O>>(
        path(method),
        writer(method.input),
        reader(method.output),
        request,
        this.#head(options),
        { deadline },
        (error, answer) => {
          signal?.removeEventListener("abort", cancel);
          if (error === null && answer !== undefined) resolve(answer);
          else reject(signal?.aborted ? reasonOf(signal) : thrown(error));
        },
      );
      const cancel = (): void => call.cancel();
      signal?.addEventListener("abort", cancel, { once: true });
    });
  }

  /** One request, many answers. Who stops reading ends the call. */
  async *stream<I extends DescMessage, O extends DescMessage>(
    method: DescMethodServerStreaming<I, O>,
    request: MessageShape<I>,
    options: CallOptions,
  ): AsyncGenerator<MessageShape<O>, void, undefined> {
    const { signal } = options;
    signal?.throwIfAborted();
    const call = this.#client.makeServerStreamRequest<MessageShape<I>, MessageShape<O>>(
      path(method),
      writer(method.input),
      reader(method.output),
      request,
      this.#head(options),
    );
    yield* answersOf<MessageShape<O>>(call, signal);
  }

  /** Many requests, many answers, for whoever handles both sides. */
  duplex<I extends DescMessage, O extends DescMessage>(
    method: DescMethodBiDiStreaming<I, O>,
    options: CallOptions = {},
  ): grpc.ClientDuplexStream<MessageShape<I>, MessageShape<O>> {
    return this.#client.makeBidiStreamRequest<MessageShape<I>, MessageShape<O>>(
      path(method),
      writer(method.input),
      reader(method.output),
      this.#head(options),
    );
  }

  /** Closes the connections. Calls that are under way go on. */
  close(): void {
    this.#client.close();
  }

  #head(options: CallOptions): grpc.Metadata {
    const head = new grpc.Metadata();
    for (const [name, value] of Object.entries(this.#metadata)) head.set(name, value);
    if (options.traceparent !== undefined) head.set("traceparent", options.traceparent);
    return head;
  }
}

/** What is read from a stream, until its end, an error, or the signal. */
export async function* answersOf<Answer>(
  call: Cancellable & AsyncIterable<unknown> & { on(event: "error", listener: () => void): unknown },
  signal: AbortSignal | undefined,
): AsyncGenerator<Answer, void, undefined> {
  const cancel = (): void => call.cancel();
  // What comes after the last that is read, a cancellation above all, is nobody's concern.
  call.on("error", () => {});
  signal?.addEventListener("abort", cancel, { once: true });
  // It may have been said before anybody listened.
  if (signal?.aborted) cancel();
  try {
    for await (const answer of call) yield answer as Answer;
  } catch (error) {
    signal?.throwIfAborted();
    throw thrown(error);
  } finally {
    signal?.removeEventListener("abort", cancel);
    cancel();
  }
  signal?.throwIfAborted();
}

interface Cancellable {
  cancel(): void;
}

/** A call's error as one of ours. */
export function thrown(error: unknown): unknown {
  return isServiceError(error) ? errorOfCall(error) : error;
}

function isServiceError(error: unknown): error is grpc.ServiceError {
  return error instanceof Error && "code" in error && typeof error.code === "number" && "details" in error;
}

/** Where a service is found. */
export function path(method: DescMethod): string {
  return `/${method.parent.typeName}/${method.name}`;
}

/** Writes messages of one type. */
export function writer<Desc extends DescMessage>(schema: Desc): (message: MessageShape<Desc>) => Buffer {
  return (message) => {
    const bytes = toBinary(schema, message);
    return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  };
}

/** Reads messages of one type. */
export function reader<Desc extends DescMessage>(schema: Desc): (bytes: Buffer) => MessageShape<Desc> {
  return (bytes) => fromBinary(schema, bytes);
}

function reasonOf(signal: AbortSignal): Error {
  return signal.reason as Error;
}

function tls(options: TlsOptions = {}): grpc.ChannelCredentials {
  return grpc.credentials.createSsl(pem(options.ca), pem(options.key), pem(options.cert));
}

function pem(text: string | Uint8Array | undefined): Buffer | null {
  return text === undefined ? null : Buffer.from(text);
}
