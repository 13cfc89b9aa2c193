// Workers against a real server. Each test has a queue of its own, since the server may have others to serve.
import assert from "node:assert/strict";
import { fork } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { after, before, test } from "node:test";
import type { TestContext } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";

import { Client, InvalidRequestError, Permanent, RetryAfter, Snooze, TaskStopped, Worker } from "@forebay/client";
import type { WorkerOptions } from "@forebay/client";
import { Server, endsServer } from "./server.js";
import { Deferred, collect, until } from "./waiting.js";

const CHILD = fileURLToPath(new URL("./child.js", import.meta.url));
const WAIT = { timeout: "60s" } as const;

let server: Server;
let client: Client;

before(async () => {
  server = await Server.start();
  client = new Client(server.url);
});

after(async () => {
  client.close();
  await server.remove();
});

/** Runs a worker for as long as a test lasts. */
function running(t: TestContext, worker: Worker): Promise<void> {
  const run = worker.run({ handleSignals: false });
  t.after(async () => {
    worker.drain();
    await run.catch(() => {});
  });
  return run;
}

function workerOf(queue: string, options: WorkerOptions = {}): Worker {
  return new Worker(server.url, { queues: [queue], logger: null, ...options });
}

function newQueue(): string {
  return `typescript-${randomUUID()}`;
}

/** A worker in a process of its own. */
function child(t: TestContext, queue: string): ChildProcess {
  const process = fork(CHILD, [server.url, queue]);
  t.after(() => process.kill("SIGKILL"));
  return process;
}

test("a task's result, log and progress are kept with it", async (t) => {
  const queue = newQueue();
  const [told, going] = [new Deferred(), new Deferred()];
  const worker = workerOf(queue, { name: "kept" }).task("keep", async (payload: { n: number }, ctx) => {
    ctx.progress(0.25, "a quarter");
    ctx.log("one\ntwo");
    told.resolve();
    await going.promise;
    return { doubled: payload.n * 2, attempt: ctx.attempt };
  });
  void running(t, worker);
  const task = await client.submit("keep", { n: 21 }, { queue });
  await told.promise;
  const seen = await until("its progress is shown", async () => (await client.get(task)).progress);
  assert.deepEqual([seen.fraction, seen.message], [0.25, "a quarter"]);
  going.resolve();
  const done = await client.wait(task, WAIT);
  assert.deepEqual([done.state, done.result], ["succeeded", { doubled: 42, attempt: 1 }]);
  assert.equal(done.log?.trim(), "one\ntwo");
  assert.notEqual(done.worker, undefined);
});

test("what a handler throws decides what becomes of its task", async (t) => {
  const queue = newQueue();
  let snoozes = 0;
  const worker = workerOf(queue)
    .task("second-time", { maxAttempts: 2 }, (_, ctx) => {
      if (ctx.attempt === 1) throw new RetryAfter("50ms", "not yet");
      return ctx.attempt;
    })
    .task("never", () => {
      throw new Permanent("no such file");
    })
    .task("sleepy", { maxAttempts: 1 }, (_, ctx) => {
      snoozes += 1;
      if (snoozes === 1) throw new Snooze("50ms");
      return [ctx.attempt, ctx.fence];
    })
    .task("breaks", { maxAttempts: 1 }, () => {
      throw new RangeError("too far");
    });
  void running(t, worker);
  const kinds = ["second-time", "never", "sleepy", "breaks"];
  const tasks = await Promise.all(kinds.map((kind) => client.submit(kind, null, { queue })));
  const [second, never, sleepy, breaks] = await Promise.all(tasks.map((task) => client.wait(task, WAIT)));
  assert.deepEqual([second?.state, second?.result], ["succeeded", 2]);
  assert.deepEqual([never?.state, never?.error?.message, never?.attempt], ["failed", "no such file", 1]);
  assert.deepEqual([sleepy?.state, sleepy?.result], ["succeeded", [1, 2]]);
  assert.deepEqual([breaks?.state, breaks?.error?.message], ["failed", "RangeError: too far"]);
  assert.match(breaks?.log ?? "", /RangeError: too far\n +at /);
});

test("a task that runs is cancelled, and its handler is told", async (t) => {
  const queue = newQueue();
  const [begun, reason] = [new Deferred(), new Deferred<unknown>()];
  const worker = workerOf(queue).task("long", async (_, { signal }) => {
    begun.resolve();
    await new Promise((resolve) => signal.addEventListener("abort", resolve));
    reason.resolve(signal.reason);
    signal.throwIfAborted();
  });
  void running(t, worker);
  const task = await client.submit("long", null, { queue });
  await begun.promise;
  await client.cancel(task);
  const stopped = await reason.promise;
  assert.ok(stopped instanceof TaskStopped);
  assert.equal(stopped.reason, "cancelled");
  assert.equal((await client.wait(task, WAIT)).state, "cancelled");
});

test("an attempt that takes too long is told to stop, and counts as failed", async (t) => {
  const queue = newQueue();
  const reason = new Deferred<unknown>();
  const worker = workerOf(queue).task("slow", { timeout: "300ms", maxAttempts: 1 }, async (_, { signal }) => {
    await new Promise((resolve) => signal.addEventListener("abort", resolve));
    reason.resolve(signal.reason);
    signal.throwIfAborted();
  });
  void running(t, worker);
  const done = await client.wait(await client.submit("slow", null, { queue }), WAIT);
  assert.deepEqual([done.state, done.error?.outcome], ["failed", "timed_out"]);
  const stopped = await reason.promise;
  assert.ok(stopped instanceof TaskStopped);
  assert.equal(stopped.reason, "timed_out");
});

test("an attempt that says nothing is ended, and one that says that it is alive is not", async (t) => {
  const queue = newQueue();
  const [reason, timeout] = [new Deferred<unknown>(), { heartbeatTimeout: "1s", maxAttempts: 1 } as const];
  const worker = workerOf(queue)
    .task("quiet", timeout, async (_, { signal }) => {
      await new Promise((resolve) => signal.addEventListener("abort", resolve));
      reason.resolve(signal.reason);
      signal.throwIfAborted();
    })
    .task("alive", timeout, async (_, { heartbeat, signal }) => {
      for (let n = 0; n < 30; n += 1) {
        heartbeat();
        await sleep(100, undefined, { signal });
      }
      return "done";
    });
  void running(t, worker);
  const [quiet, alive] = await Promise.all(["quiet", "alive"].map((kind) => client.submit(kind, null, { queue })));
  assert.ok(quiet !== undefined && alive !== undefined);
  const ended = await client.wait(quiet, WAIT);
  assert.deepEqual([ended.state, ended.error?.outcome], ["failed", "timed_out"]);
  assert.equal(ended.error?.message, "heartbeat timeout: the attempt said nothing for 1 s");
  const stopped = await reason.promise;
  assert.ok(stopped instanceof TaskStopped);
  assert.equal(stopped.reason, "timed_out");
  const done = await client.wait(alive, WAIT);
  assert.deepEqual([done.state, done.result, done.errors], ["succeeded", "done", []]);
});

test("many tasks run, and never more at once than there are places", async (t) => {
  const queue = newQueue();
  const [concurrency, count] = [8, 300];
  let [now, most] = [0, 0];
  const worker = workerOf(queue, { concurrency }).task("square", async (n: number) => {
    now += 1;
    most = Math.max(most, now);
    await new Promise(setImmediate);
    now -= 1;
    return n * n;
  });
  void running(t, worker);
  const tasks = Array.from({ length: count }, (_, n) => ({ kind: "square", payload: n, queue }));
  const accepted = await collect(client.submitMany(tasks));
  const ids = accepted.map(({ id }) => id).filter((id) => id !== undefined);
  assert.equal(ids.length, count);
  const results = await Promise.all(ids.map(async (id) => (await client.wait<number>(id, WAIT)).result));
  assert.deepEqual(results, Array.from({ length: count }, (_, n) => n * n));
  assert.ok(most >= 1 && most <= concurrency, String(most));
});

test("a worker that is refused rejects with each field at fault", async () => {
  const worker = workerOf(newQueue()).task("Not A Kind", () => {});
  await assert.rejects(worker.run({ handleSignals: false }), (error) => {
    assert.ok(error instanceof InvalidRequestError);
    assert.ok(error.violations.some(({ field }) => field.includes("kind")), JSON.stringify(error.violations));
    return true;
  });
});

test("a worker that is killed in the middle of a task: it is finished elsewhere", async (t) => {
  const queue = newQueue();
  const victim = child(t, queue);
  const task = await client.submit("slow", null, { queue });
  assert.equal((await once(victim, "message"))[0], task.id);
  const heir = child(t, queue);
  victim.kill("SIGKILL");
  assert.equal((await once(heir, "message"))[0], task.id);
  heir.send("go on");
  const done = await client.wait(task, WAIT);
  assert.deepEqual([done.state, done.result, done.attempt], ["succeeded", heir.pid, 1]);
  assert.deepEqual(done.errors.map(({ outcome }) => outcome), ["lost"]);
});

test("SIGTERM drains: what runs is finished, and nothing new is begun", async (t) => {
  const queue = newQueue();
  const worker = child(t, queue);
  const exit = once(worker, "exit");
  const task = await client.submit("slow", null, { queue });
  await once(worker, "message");
  worker.kill("SIGTERM");
  const other = await client.submit("slow", null, { queue });
  worker.send("go on");
  assert.deepEqual(await exit, [0, null]);
  assert.equal((await client.wait(task, WAIT)).result, worker.pid);
  assert.equal((await client.get(other)).attempt, 0);
  await client.cancel(other);
});

test("a second SIGTERM hands back at once what runs, at no cost of an attempt", async (t) => {
  const queue = newQueue();
  const worker = child(t, queue);
  const exit = once(worker, "exit");
  const task = await client.submit("slow", null, { queue });
  await once(worker, "message");
  worker.kill("SIGTERM");
  // Signals of one sort that come together are one.
  assert.equal((await once(worker, "message"))[0], "SIGTERM");
  worker.kill("SIGTERM");
  assert.deepEqual(await exit, [0, null]);
  const heir = child(t, queue);
  await once(heir, "message");
  heir.send("go on");
  const done = await client.wait(task, WAIT);
  assert.deepEqual([done.state, done.result, done.attempt], ["succeeded", heir.pid, 1]);
});

test("a server that dies and comes back gets its worker back", endsServer, async (t) => {
  const queue = newQueue();
  const begun: string[] = [];
  const worker = workerOf(queue).task("survivor", async (_, ctx) => {
    begun.push(ctx.id);
    if (begun.length > 1) return "done";
    await new Promise((resolve) => ctx.signal.addEventListener("abort", resolve));
    throw ctx.signal.reason as Error;
  });
  void running(t, worker);
  const task = await client.submit("survivor", null, { queue });
  await until("it runs", () => begun.length === 1);
  await server.end("SIGKILL");
  await server.begin();
  const done = await client.wait(task, WAIT);
  assert.deepEqual([done.state, done.result], ["succeeded", "done"]);
});
