// The client against a real server, with the handlers that `forebay dev` has built in.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import {
  Client,
  ConflictError,
  IdempotencyKeyReusedError,
  InvalidRequestError,
  NotFoundError,
  WaitTimeoutError,
  isFinal,
} from "@forebay/client";
import type { NewSchedule, NewTask, SubmitOptions, Task } from "@forebay/client";
import { Server } from "./server.js";
import { collect, until } from "./waiting.js";

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

test("a task is submitted, waited for, and read", async () => {
  const before = Date.now();
  const submitted = await client.submit("echo", { hello: ["wörld", 1, null] }, { tags: ["a", "b"], priority: "high" });
  assert.equal(submitted.kind, "echo");
  const task = await client.wait<{ hello: string[] }>(submitted, { timeout: "30s" });
  assert.deepEqual([task.id, task.state, task.attempt], [submitted.id, "succeeded", 1]);
  assert.deepEqual(task.result, { hello: ["wörld", 1, null] });
  assert.deepEqual(task.payload, task.result);
  assert.deepEqual([task.queue, task.project, task.priority, task.tags], ["default", "default", "high", ["a", "b"]]);
  assert.deepEqual([task.error, task.errors, task.progress, task.cancelRequested], [undefined, [], undefined, false]);
  assert.ok(task.finishedAt !== undefined && task.startedAt !== undefined && task.startedAt <= task.finishedAt);
  assert.ok(Math.abs(task.createdAt.getTime() - before) < 60_000);
  assert.deepEqual(await client.get(submitted.id), task);
});

test("a task with a time waits for it", async () => {
  const runAt = new Date(Date.now() + 3_600_000);
  const task = await client.submit("echo", 1, { runAt, maxAttempts: 7, timeout: "90s", queue: "later", project: "shop" });
  assert.deepEqual([task.state, task.runAt], ["scheduled", runAt]);
  assert.deepEqual([task.maxAttempts, task.timeout, task.queue, task.project], [7, 90_000, "later", "shop"]);
  const delayed = await client.submit("echo", 1, { delay: "1h" });
  const ahead = (delayed.runAt?.getTime() ?? 0) - Date.now();
  assert.ok(ahead > 3_500_000 && ahead < 3_700_000, String(ahead));
  await client.cancel(task);
});

test("the same idempotency key names the same task, and no other", async () => {
  const options = { idempotencyKey: "order-17" };
  const first = await client.submit("echo", 1, options);
  const second = await client.submit("echo", 1, options);
  assert.equal(second.id, first.id);
  await assert.rejects(client.submit("echo", 2, options), (error) => {
    assert.ok(error instanceof IdempotencyKeyReusedError);
    assert.deepEqual([error.code, error.status], ["idempotency_key_reused", "ALREADY_EXISTS"]);
    return true;
  });
});

test("a request at fault names each field", async () => {
  const wrong = client.submit("Not A Kind", 1, { queue: "no queue", tags: ["fine", ""] });
  await assert.rejects(wrong, (error) => {
    assert.ok(error instanceof InvalidRequestError);
    assert.equal(error.code, "invalid_request");
    assert.deepEqual(error.violations.map(({ field }) => field).sort(), ["kind", "queue", "tags[1]"]);
    assert.equal(error.retryAfter, undefined);
    return true;
  });
});

test("what no server need be asked is refused here", async () => {
  const cases: [options: Record<string, unknown>, said: RegExp][] = [
    [{ tags: "one" }, /^TypeError: tags must be an array/],
    [{ tags: [1] }, /^TypeError: tags must be an array of strings: 1/],
    [{ notify: "one" }, /^TypeError: notify must be an array/],
    [{ after: "one" }, /^TypeError: after must be an array/],
    [{ after: [1] }, /^TypeError: a task, or its id, must be an object: 1/],
    [{ after: [{}] }, /^TypeError: a task has an id/],
    [{ queue: 5 }, /^TypeError: queue must be a string: 5/],
    [{ limitKey: "" }, /^RangeError: limitKey must not be empty/],
    [{ idempotencyKey: "" }, /^RangeError: idempotencyKey must not be empty/],
    [{ maxAttempts: 1.5 }, /^RangeError: maxAttempts: 1.5 is no whole number/],
    [{ maxAttempts: 2 ** 40 }, /^RangeError: maxAttempts: 1099511627776 is no whole number from 0 to 2147483647/],
    [{ maxAttempts: "3" }, /^RangeError: maxAttempts: 3 is no whole number/],
    [{ runAt: "2030-01-01T00:00:00Z" }, /^TypeError: runAt must be a Date: 2030/],
    [{ expiresAt: new Date(Number.NaN) }, /^RangeError: expiresAt: an invalid Date/],
    [{ delay: "5 minutes" }, /^RangeError: delay: 5 minutes is no duration/],
    [{ retry: 3 }, /^TypeError: retry must be an object: 3/],
    [{ unique: true }, /^TypeError: unique must be an object: true/],
  ];
  for (const [options, said] of cases) await assert.rejects(client.submit("echo", 1, options as SubmitOptions), said);
  await assert.rejects(client.get(undefined as unknown as string), /^TypeError: a task, or its id, must be an object/);
  await assert.rejects(collect(client.list({ state: "nope" as "queued" })), /^TypeError: state: nope is none/);
  await assert.rejects(collect(client.list({ pageSize: -1 })), /^RangeError: pageSize: -1 is no whole number/);
  await assert.rejects(client.limits.put("x", { concurrency: -1 }), /^RangeError: concurrency: -1 is no whole number/);
  const schedule = { cron: "* * * * *" } as NewSchedule;
  await assert.rejects(client.schedules.put("x", schedule), /^TypeError: task must be an object: undefined/);
});

test("one of many that no stream can carry does not take others with it", async () => {
  const payloads = ["first", "x".repeat(300_000), "x".repeat(5_000_000)];
  const results = client.submitMany(payloads.map((payload) => ({ kind: "echo", payload })));
  assert.equal((await results.next()).value?.error, undefined);
  assert.equal((await results.next()).value?.error?.code, "payload_too_large");
  await assert.rejects(results.next(), /^RangeError: task 2 has a payload of 5000002 bytes, of which 4000000 can be sent/);
});

test("what is not there is not found", async () => {
  const id = "0190f3c4-1b2c-7def-8abc-0123456789ab";
  const calls = [client.get(id), client.wait(id), client.cancel(id), client.retry(id), client.watch(id).next()];
  for (const call of await Promise.allSettled(calls)) {
    assert.equal(call.status, "rejected");
    const error: unknown = call.reason;
    assert.ok(error instanceof NotFoundError && error.code === "task_not_found");
  }
});

test("a task is cancelled, and brought back", async () => {
  const task = await client.submit("echo", 1, { delay: "1h" });
  assert.equal((await client.cancel(task)).state, "cancelled");
  await assert.rejects(client.cancel(task), (error) => {
    assert.ok(error instanceof ConflictError);
    assert.deepEqual([error.code, error.state], ["state_conflict", "cancelled"]);
    return true;
  });
  const back = await client.retry(task);
  assert.equal(isFinal(back.state), false);
});

test("a failure is told with its attempts", async () => {
  const task = await client.submit("fail", { message: "as asked" }, { maxAttempts: 1 });
  const failed = await client.wait(task, { timeout: "30s" });
  assert.deepEqual([failed.state, failed.result, failed.errors.length], ["failed", undefined, 1]);
  assert.equal(failed.error?.outcome, "failed");
  assert.ok(failed.error.at instanceof Date);
});

test("a wait ends in time, by timeout or by signal", async () => {
  const task = await client.submit("echo", 1, { delay: "1h" });
  await assert.rejects(client.wait(task, { timeout: 100 }), (error) => {
    assert.ok(error instanceof WaitTimeoutError);
    assert.deepEqual([error.taskId, error.timeout], [task.id, 100]);
    return true;
  });
  const reason = new Error("enough");
  const controller = new AbortController();
  const waiting = client.wait(task, { signal: controller.signal, timeout: "1h" });
  setImmediate(() => controller.abort(reason));
  await assert.rejects(waiting, reason);
  await assert.rejects(client.get(task, { signal: AbortSignal.abort(reason) }), reason);
  await assert.rejects(client.watch(task, { signal: AbortSignal.abort(reason) }).next(), reason);
  await assert.rejects(collect(client.submitMany([{ kind: "echo" }], { signal: AbortSignal.abort(reason) })), reason);
});

test("a task is watched from state to state", async () => {
  const task = await client.submit("echo", 1, { delay: 300 });
  const changes = await collect(client.watch(task));
  const states = changes.map(({ state }) => state);
  assert.deepEqual([states[0], states.at(-1)], ["scheduled", "succeeded"]);
  assert.equal(changes[0]?.task?.id, task.id);
  assert.equal(changes.at(-1)?.task?.result, 1);
  const last = changes.at(-1);
  assert.ok(last !== undefined);
  assert.deepEqual(await collect(client.watch(task, { after: last.cursor })), [], "nothing comes after the end");
  const first = changes[0];
  assert.ok(first !== undefined);
  const rest = await collect(client.watch(task, { after: first.cursor }));
  assert.deepEqual(rest.map(({ state }) => state), ["succeeded"]);
});

test("who stops watching is left alone", async () => {
  const task = await client.submit("echo", 1, { delay: "1h" });
  for await (const change of client.watch(task)) {
    assert.equal(change.state, "scheduled");
    break;
  }
});

test("lists are filtered, and paged through", async () => {
  const tags = [`list-${process.pid}`];
  const submitted: Task[] = [];
  for (let n = 0; n < 5; n += 1) submitted.push(await client.submit("echo", n, { tags, delay: "1h" }));
  const wanted = submitted.map(({ id }) => id).reverse();
  const listed = await until("all are listed", async () => {
    const found = await collect(client.list({ tag: tags[0], pageSize: 2 }));
    return found.length === 5 && found;
  });
  assert.deepEqual(listed.map(({ id }) => id), wanted);
  const page = await client.listPage({ tag: tags[0], pageSize: 3, state: "scheduled", kind: "echo", queue: "default" });
  assert.equal(page.tasks.length, 3);
  const next = await client.listPage({
    tag: tags[0],
    pageSize: 3,
    state: "scheduled",
    kind: "echo",
    queue: "default",
    pageToken: page.nextPageToken,
  });
  assert.deepEqual([next.tasks.length, next.nextPageToken], [2, undefined]);
  assert.deepEqual(await collect(client.list({ tag: tags[0], createdBefore: new Date(0) })), []);
  const after = new Date(Date.now() + 60_000);
  assert.deepEqual(await collect(client.list({ tag: tags[0], createdAfter: after })), []);
  await assert.rejects(collect(client.list({ pageSize: 1_000 })), InvalidRequestError);
});

test("many are submitted on one stream, and each is answered in order", async () => {
  async function* tasks(): AsyncGenerator<NewTask> {
    for (let n = 0; n < 2_500; n += 1) {
      if (n === 7) yield { kind: "Not A Kind" };
      else yield { kind: "echo", payload: n, delay: "1h" };
      if (n % 1_000 === 0) await new Promise(setImmediate);
    }
  }
  const results = await collect(client.submitMany(tasks()));
  assert.deepEqual(results.map(({ index }) => index), [...Array(2_500).keys()]);
  const refused = results.filter((result) => result.error !== undefined);
  assert.equal(refused.length, 1);
  const [wrong] = refused;
  assert.ok(wrong?.index === 7 && wrong.error instanceof InvalidRequestError);
  assert.deepEqual(wrong.error.violations.map(({ field }) => field), ["kind"]);
  const last = results.at(-1);
  assert.ok(last?.id !== undefined && last.state === "scheduled");
  assert.equal((await client.get<number>(last.id)).payload, 2_499);
  assert.deepEqual(await collect(client.submitMany([])), []);
});

test("an input that breaks is told after what it gave was answered", async () => {
  const mistake = new Error("the file ended early");
  function* tasks(): Generator<NewTask> {
    yield { kind: "echo", payload: 1 };
    yield { kind: "echo", payload: 2 };
    throw mistake;
  }
  const seen: number[] = [];
  const reading = (async () => {
    for await (const result of client.submitMany(tasks())) seen.push(result.index);
  })();
  await assert.rejects(reading, mistake);
  assert.deepEqual(seen, [0, 1]);
});

test("a server that ends and comes back is waited out", async () => {
  const task = await client.submit("echo", "still here", { delay: "2s" });
  const waiting = client.wait(task, { timeout: "60s" });
  const watching = collect(client.watch(task));
  await client.get(task);
  await server.end("SIGKILL");
  await server.begin();
  const done = await waiting;
  assert.deepEqual([done.state, done.result], ["succeeded", "still here"]);
  assert.equal((await watching).at(-1)?.state, "succeeded");
});
