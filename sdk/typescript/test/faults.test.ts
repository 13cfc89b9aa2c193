// The client against a server of our own, which breaks in every way that matters.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import type { TestContext } from "node:test";

import { create } from "@bufbuild/protobuf";
import * as grpc from "@grpc/grpc-js";

import { ApiError, Client, OverloadedError, RequestTimeoutError, UnavailableError } from "@forebay/client";
import type { ClientOptions, NewTask, SubmitResult } from "@forebay/client";
import {
  GetTaskResponseSchema,
  SubmitTaskResponseSchema,
  SubmitTasksResponseSchema,
  TaskState,
  WatchTaskResponseSchema,
} from "../dist/gen/forebay/v1/task_pb.js";
import type { SubmitTaskRequest, SubmitTasksResponse } from "../dist/gen/forebay/v1/task_pb.js";
import { refusal } from "./details.js";
import type { Told } from "./details.js";
import { Fake } from "./fake.js";
import type { TaskHandlers } from "./fake.js";
import { collect, until } from "./waiting.js";

const { UNAVAILABLE, RESOURCE_EXHAUSTED, INTERNAL, PERMISSION_DENIED } = grpc.status;

async function serve(t: TestContext, tasks: TaskHandlers, options: ClientOptions = {}): Promise<Client> {
  const fake = await Fake.start(tasks);
  const client = new Client(fake.url, options);
  t.after(() => {
    client.close();
    fake.stop();
  });
  return client;
}

const submitted = create(SubmitTaskResponseSchema, { task: { id: "t", state: TaskState.QUEUED } });

/** A server that answers submissions with one error after the other, and then accepts. */
function refusing(errors: readonly grpc.ServiceError[]): { readonly tasks: TaskHandlers; readonly calls: () => number } {
  let calls = 0;
  const submitTask: TaskHandlers["submitTask"] = (_, answer) => {
    const error = errors[calls];
    calls += 1;
    if (error === undefined) answer(null, submitted);
    else answer(error);
  };
  return { tasks: { submitTask }, calls: () => calls };
}

test("a submission that was surely not accepted is sent again", async (t) => {
  const tellings: Told[] = [
    { reason: "overloaded", retryAfterMs: 1 },
    { reason: "shutting_down", retryAfterMs: 1 },
  ];
  const full = refusal(RESOURCE_EXHAUSTED, "Full", { reason: "backlog_full", retryAfterMs: 1 });
  const { tasks, calls } = refusing([full, ...tellings.map((told) => refusal(UNAVAILABLE, "No", told))]);
  const client = await serve(t, tasks);
  assert.equal((await client.submit("echo")).id, "t");
  assert.equal(calls(), 4);
});

test("one that may have been accepted is sent again only with an idempotency key", async (t) => {
  const lost = refusal(UNAVAILABLE, "No confirmation", { reason: "broker_unavailable", retryAfterMs: 1 });
  const plain = refusing([lost]);
  const client = await serve(t, plain.tasks);
  await assert.rejects(client.submit("echo"), (error) => {
    assert.ok(error instanceof UnavailableError);
    assert.deepEqual([error.code, error.retryAfter], ["broker_unavailable", 1]);
    return true;
  });
  assert.equal(plain.calls(), 1);
  const keyed = refusing([lost, lost]);
  const other = await serve(t, keyed.tasks);
  await other.submit("echo", null, { idempotencyKey: "k" });
  assert.equal(keyed.calls(), 3);
});

test("four attempts are enough, and a defect is not tried again", async (t) => {
  const full = refusal(RESOURCE_EXHAUSTED, "Full", { reason: "backlog_full", retryAfterMs: 1 });
  const never = refusing(Array.from({ length: 9 }, () => full));
  const client = await serve(t, never.tasks);
  await assert.rejects(client.submit("echo"), OverloadedError);
  assert.equal(never.calls(), 4);
  const broken = refusing([refusal(INTERNAL, "A defect", { reason: "internal" })]);
  const other = await serve(t, broken.tasks);
  await assert.rejects(other.submit("echo", null, { idempotencyKey: "k" }), (error) => {
    return error instanceof ApiError && error.code === "internal";
  });
  assert.equal(broken.calls(), 1);
});

test("what the server wants much later is left to the caller", async (t) => {
  const full = refusal(RESOURCE_EXHAUSTED, "Full", { reason: "backlog_full", retryAfterMs: 999 });
  const { tasks, calls } = refusing([full, full]);
  const client = await serve(t, tasks, { callTimeout: 500 });
  await assert.rejects(client.submit("echo"), OverloadedError);
  assert.equal(calls(), 1);
});

test("a server that is not there is told so, and found when it comes", async (t) => {
  const fake = await Fake.start();
  fake.stop();
  const client = new Client(fake.url);
  t.after(() => client.close());
  await assert.rejects(client.submit("echo"), (error) => {
    assert.ok(error instanceof UnavailableError);
    assert.equal(error.code, "not_connected");
    return true;
  });
  const late = await Fake.start({ submitTask: (_, answer) => answer(null, submitted) }, fake.port);
  t.after(() => late.stop());
  const task = await until("it is found", () => client.submit("echo").catch(() => undefined));
  assert.equal(task.id, "t");
});

test("an answer that does not come is not waited for for ever", async (t) => {
  const client = await serve(t, { submitTask: () => {} }, { callTimeout: 100 });
  await assert.rejects(client.submit("echo"), (error) => {
    return error instanceof RequestTimeoutError && error.code === "deadline_exceeded";
  });
  const reason = new Error("enough");
  const controller = new AbortController();
  const call = client.submit("echo", null, { signal: controller.signal });
  controller.abort(reason);
  await assert.rejects(call, reason);
});

test("what goes with each call goes with each call", async (t) => {
  const heads: grpc.Metadata[] = [];
  const submitTask: TaskHandlers["submitTask"] = (call, answer) => {
    heads.push(call.metadata);
    answer(null, submitted);
  };
  const client = await serve(t, { submitTask }, { metadata: { authorization: "Bearer x" } });
  await client.submit("echo", null, { traceparent: "00-1-2-01" });
  const [head] = heads;
  assert.deepEqual([head?.get("authorization"), head?.get("traceparent")], [["Bearer x"], ["00-1-2-01"]]);
  assert.match(String(head?.get("user-agent")[0]), /^forebay-typescript\//);
});

test("TLS trusts whom it is told to, and nobody else", async (t) => {
  const folder = mkdtempSync(join(tmpdir(), "forebay-tls-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const [keyFile, certFile] = [join(folder, "key.pem"), join(folder, "cert.pem")];
  const self = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"];
  const curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
  const made = ["req", "-x509", "-days", "1", ...curve, ...self, "-keyout", keyFile, "-out", certFile];
  execFileSync("openssl", made, { stdio: "ignore" });
  const [key, cert] = [readFileSync(keyFile), readFileSync(certFile)];
  const credentials = grpc.ServerCredentials.createSsl(null, [{ private_key: key, cert_chain: cert }]);
  const fake = await Fake.start({ submitTask: (_, answer) => answer(null, submitted) }, 0, credentials);
  t.after(() => fake.stop());
  const url = `https://localhost:${fake.port}`;
  const trusting = new Client(url, { tls: { ca: cert.toString() } });
  t.after(() => trusting.close());
  assert.equal((await trusting.submit("echo")).id, "t");
  const wary = new Client(url);
  t.after(() => wary.close());
  await assert.rejects(wary.submit("echo"), UnavailableError);
});

test("a task that is not recorded yet is waited for", async (t) => {
  let calls = 0;
  const client = await serve(t, {
    getTask: (_, answer) => {
      calls += 1;
      const task = { id: "t", state: TaskState.QUEUED };
      if (calls < 12) answer(refusal(UNAVAILABLE, "Not yet", { reason: "not_yet_recorded", retryAfterMs: 999 }));
      else answer(null, create(GetTaskResponseSchema, { task }));
    },
  });
  const before = performance.now();
  assert.equal((await client.get("t")).id, "t");
  assert.ok(performance.now() - before < 7_000, "it looks more often than a second apart");
});

test("a watch goes on where it was, over streams that break and streams that end", async (t) => {
  const asked: string[] = [];
  const client = await serve(t, {
    watchTask: (call) => {
      const step = (state: TaskState, cursor: string): boolean =>
        call.write(create(WatchTaskResponseSchema, { state, cursor, attempt: 1, task: { id: "t", state } }));
      asked.push(call.request.after);
      switch (asked.length) {
        case 1:
          step(TaskState.QUEUED, "c1");
          step(TaskState.RUNNING, "c2");
          call.emit("error", refusal(UNAVAILABLE, "gone"));
          break;
        case 2:
          call.end();
          break;
        case 3:
          // It is asked again without a cursor, and tells a step that is known.
          step(TaskState.RUNNING, "c2");
          call.emit("error", refusal(INTERNAL, "reset"));
          break;
        default:
          step(TaskState.SUCCEEDED, "c3");
          call.end();
      }
    },
  });
  const changes = await collect(client.watch("t"));
  assert.deepEqual(changes.map(({ cursor }) => cursor), ["c1", "c2", "c3"]);
  assert.deepEqual(asked, ["", "c2", "", "c2"]);
});

test("progress is told as a step of its own", async (t) => {
  const at = { seconds: 1n };
  const client = await serve(t, {
    watchTask: (call) => {
      const running = { state: TaskState.RUNNING, cursor: "c1", attempt: 1 };
      call.write(create(WatchTaskResponseSchema, { ...running, task: { id: "t", state: TaskState.RUNNING } }));
      call.write(create(WatchTaskResponseSchema, { ...running, progress: { fraction: 0.5, message: "half", at } }));
      call.write(create(WatchTaskResponseSchema, { state: TaskState.CANCELLED, cursor: "c2" }));
      call.end();
    },
  });
  const changes = await collect(client.watch("t"));
  assert.deepEqual(changes.map(({ progress }) => progress?.fraction), [undefined, 0.5, undefined]);
  assert.deepEqual(changes[1]?.progress, { fraction: 0.5, message: "half", at: new Date(1_000) });
});

test("a wait reads now and then where the server has no place for a stream", async (t) => {
  let reads = 0;
  const client = await serve(t, {
    watchTask: (call) => call.emit("error", refusal(UNAVAILABLE, "No place", { reason: "overloaded" })),
    getTask: (_, answer) => {
      reads += 1;
      const state = reads < 3 ? TaskState.RUNNING : TaskState.SUCCEEDED;
      answer(null, create(GetTaskResponseSchema, { task: { id: "t", state } }));
    },
  });
  assert.equal((await client.wait("t", { timeout: "20s" })).state, "succeeded");
  assert.equal(reads, 3);
});

type Upload = grpc.ServerDuplexStream<SubmitTaskRequest, SubmitTasksResponse>;

/** A server of uploads, which does with each stream what is said for it. */
function uploads(...streams: ((call: Upload, request: SubmitTaskRequest, index: number) => void)[]): TaskHandlers {
  let opened = 0;
  return {
    submitTasks: (call) => {
      const handle = streams[Math.min(opened, streams.length - 1)];
      opened += 1;
      let index = 0;
      call.on("data", (request: SubmitTaskRequest) => handle?.(call, request, index++));
      call.on("end", () => call.end());
    },
  };
}

function accept(call: Upload, request: SubmitTaskRequest, index: number): void {
  const id = Buffer.from(request.payload).toString();
  const result = { case: "accepted" as const, value: { id, state: TaskState.QUEUED } };
  call.write(create(SubmitTasksResponseSchema, { index: BigInt(index), result }));
}

function summary(results: readonly SubmitResult[]): (string | undefined)[] {
  return results.map(({ index, id, error }) => `${index}:${id ?? error?.code}`);
}

const tasks = (count: number, keyed: (n: number) => boolean): NewTask[] =>
  Array.from({ length: count }, (_, n) => ({
    kind: "echo",
    payload: n,
    ...(keyed(n) ? { idempotencyKey: `key-${n}` } : {}),
  }));

test("an upload that breaks goes on: what has a key is sent again, what has none is told as not known", async (t) => {
  const broken = (call: Upload, request: SubmitTaskRequest, index: number): void => {
    if (index < 2) accept(call, request, index);
    if (index === 3) call.emit("error", refusal(UNAVAILABLE, "gone"));
  };
  const client = await serve(t, uploads(broken, accept));
  const results = await collect(client.submitMany(tasks(4, (n) => n === 3)));
  assert.deepEqual(summary(results), ["0:0", "1:1", "2:unreachable", "3:3"]);
});

test("an upload that is reset goes on as one that breaks", async (t) => {
  const reset = (call: Upload, request: SubmitTaskRequest, index: number): void => {
    if (index === 0) accept(call, request, index);
    if (index === 2) call.emit("error", refusal(INTERNAL, "reset"));
  };
  const client = await serve(t, uploads(reset, accept));
  const results = await collect(client.submitMany(tasks(3, (n) => n === 2)));
  assert.deepEqual(summary(results), ["0:0", "1:internal", "2:2"]);
});

test("an upload that is refused tells of what it had begun, and throws", async (t) => {
  const refuse = (call: Upload, request: SubmitTaskRequest, index: number): void => {
    if (index === 0) accept(call, request, index);
    if (index === 2) call.emit("error", refusal(PERMISSION_DENIED, "No"));
  };
  const client = await serve(t, uploads(refuse));
  const results: SubmitResult[] = [];
  const reading = (async () => {
    for await (const result of client.submitMany(tasks(3, (n) => n === 2))) results.push(result);
  })();
  await assert.rejects(reading, (error) => error instanceof ApiError && error.code === "permission_denied");
  assert.deepEqual(summary(results), ["0:0", "1:permission_denied", "2:permission_denied"]);
});

test("what a server that shuts down turns away is taken by the next", async (t) => {
  const leaving = (call: Upload, request: SubmitTaskRequest, index: number): void => {
    if (index === 0) return accept(call, request, index);
    const value = { code: "shutting_down", detail: "It ends", retryAfter: { nanos: 1_000_000 } };
    const result = { case: "problem" as const, value };
    call.write(create(SubmitTasksResponseSchema, { index: BigInt(index), result }));
  };
  const client = await serve(t, uploads(leaving, accept));
  const results = await collect(client.submitMany(tasks(3, () => false)));
  assert.deepEqual(summary(results), ["0:0", "1:1", "2:2"]);
});

test("what a server has not answered when it ends a stream in good order is sent again", async (t) => {
  const ending = (call: Upload, request: SubmitTaskRequest, index: number): void => {
    if (index === 0) accept(call, request, index);
    if (index === 1) call.end();
  };
  const client = await serve(t, uploads(ending, accept));
  const results = await collect(client.submitMany(tasks(3, () => false)));
  assert.deepEqual(summary(results), ["0:0", "1:1", "2:2"]);
});

test("a stream that the server ends for want of news is opened again when there is some", async (t) => {
  let opened = 0;
  const client = await serve(t, {
    submitTasks: (call) => {
      opened += 1;
      call.on("data", (request: SubmitTaskRequest) => {
        accept(call, request, 0);
        call.end();
      });
    },
  });
  async function* slow(): AsyncGenerator<NewTask> {
    yield { kind: "echo", payload: 0 };
    await until("the first is answered", () => opened === 1 && results.length === 1);
    yield { kind: "echo", payload: 1 };
  }
  const results: SubmitResult[] = [];
  for await (const result of client.submitMany(slow())) results.push(result);
  assert.deepEqual([summary(results), opened], [["0:0", "1:1"], 2]);
});

test("an upload to nobody tells of what it had begun, and throws", async (t) => {
  const fake = await Fake.start();
  fake.stop();
  const client = new Client(fake.url);
  t.after(() => client.close());
  const results: SubmitResult[] = [];
  const reading = (async () => {
    for await (const result of client.submitMany(tasks(3, () => false))) results.push(result);
  })();
  await assert.rejects(reading, (error) => error instanceof UnavailableError && error.code === "not_connected");
  assert.deepEqual(summary(results), ["0:not_connected", "1:not_connected", "2:not_connected"]);
});

test("an upload reads no further ahead than it may", async (t) => {
  const client = await serve(t, uploads(() => {}));
  let read = 0;
  function* endless(): Generator<NewTask> {
    for (;;) {
      read += 1;
      yield { kind: "echo", payload: read };
    }
  }
  const reason = new Error("enough");
  const controller = new AbortController();
  const reading = collect(client.submitMany(endless(), { signal: controller.signal }));
  await until("it has read all that it may", () => read >= 1_000);
  await new Promise((resolve) => setTimeout(resolve, 100));
  assert.ok(read <= 1_002, String(read));
  controller.abort(reason);
  await assert.rejects(reading, reason);
});
