// What a task may ask for beyond being run, against a real server.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { Client, ConflictError, InvalidRequestError, NotFoundError } from "@forebay/client";
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

test("what is asked for is kept", async () => {
  const first = await client.submit("echo", 1, { delay: "1h" });
  const expiresAt = new Date(Date.now() + 7_200_000);
  const task = await client.submit("echo", 2, {
    expiresAt,
    heartbeatTimeout: "1500ms",
    retry: { base: "2s", factor: 3, cap: "1m" },
    limitKey: "customer-7",
    unique: { key: "only", window: "1m", onConflict: "reject" },
    after: [first],
    onDependencyFailure: "run",
  });
  assert.deepEqual([task.expiresAt, task.heartbeatTimeout, task.limitKey], [expiresAt, 1_500, "customer-7"]);
  assert.deepEqual(task.retry, { base: 2_000, factor: 3, cap: 60_000, delays: [] });
  assert.deepEqual([task.after, task.onDependencyFailure], [[first.id], "run"]);
  assert.ok(task.unique !== undefined && task.unique.onConflict === "reject" && task.unique.mark !== "");
  assert.equal(task.unique.until?.getTime(), task.createdAt.getTime() + 60_000);
  assert.equal((await client.get(task)).state, "blocked");
  const { retry, unique, limitKey, notify, batch, onDependencyFailure } = first;
  assert.deepEqual([retry, unique, limitKey, notify, batch], [undefined, undefined, undefined, [], undefined]);
  assert.deepEqual([first.after, onDependencyFailure, first.expiresAt], [[], undefined, undefined]);
});

test("a task waits for others", async () => {
  const first = await client.submit("echo", 1, { delay: "500ms" });
  const then = await client.wait(await client.submit("echo", 2, { after: [first.id] }), { timeout: "30s" });
  assert.equal(then.state, "succeeded");
  const ended = (await client.get(first)).finishedAt;
  assert.ok(ended !== undefined && then.startedAt !== undefined && ended <= then.startedAt);
});

test("one of a kind is returned, refused, or replaced", async () => {
  const only = (onConflict: "return" | "reject" | "replace") => ({ delay: "1h", unique: { key: "one", onConflict } }) as const;
  const first = await client.submit("echo", 1, only("return"));
  assert.equal((await client.submit("echo", 2, only("return"))).id, first.id);
  await assert.rejects(client.submit("echo", 3, only("reject")), (error) => {
    assert.ok(error instanceof ConflictError && error.code === "unique_conflict");
    return error.message.includes(first.id);
  });
  const next = await client.submit("echo", 4, only("replace"));
  await until("the first is replaced", async () => (await client.get(first)).state === "cancelled");
  assert.equal((await client.get(next)).state, "scheduled");
});

test("a task expires", async () => {
  const task = await client.submit("echo", 1, { queue: "nobody", scheduleToStartTimeout: 200 });
  assert.equal((await client.wait(task, { timeout: "30s" })).state, "expired");
});

test("many have terms, too", async () => {
  const [kept, refused] = await collect(
    client.submitMany([
      { kind: "echo", queue: "nobody", limitKey: "k" },
      { kind: "echo", retry: { factor: 0.5 }, after: ["x"] },
    ]),
  );
  assert.ok(kept?.id !== undefined);
  assert.equal((await client.get(kept.id)).limitKey, "k");
  assert.ok(refused?.error instanceof InvalidRequestError);
  const fields = refused.error.violations.map(({ field }) => field).sort();
  assert.deepEqual(fields, ["after[0]", "retry.factor"]);
});

test("what a task waits for is explained", async () => {
  const later = await client.submit("echo", 1, { delay: "1h" });
  const why = await client.explain(later);
  assert.deepEqual([why.id, why.state, why.reason], [later.id, "scheduled", "waits_for_time"]);
  assert.deepEqual([why.runAt, why.nextAttempt, why.limit, why.blockedOn], [later.runAt, 1, undefined, []]);
  const blocked = await client.explain(await client.submit("echo", 2, { after: [later] }));
  assert.deepEqual([blocked.reason, blocked.blockedOn], ["waits_for_tasks", [later.id]]);
  const unheard = await client.submit("echo", 3, { queue: "nobody-here" });
  await until("nobody works on the queue", async () => (await client.explain(unheard)).reason === "no_worker");
  await assert.rejects(client.explain("0190f3c4-1b2c-7def-8abc-0123456789ab"), NotFoundError);
});

test("what a limit holds back says so", async () => {
  await client.limits.put("one-each", { kind: "sleep", byKey: true, concurrency: 1 });
  const two = (key: string) => Promise.all([1, 2].map(() => client.submit("sleep", { seconds: 300 }, { limitKey: key })));
  let round = 0;
  const held = await until("a limit holds within a second", async () => {
    const tasks = await two(`key-${round++}`);
    const read = await until("both have been looked at", async () => {
      const now = await Promise.all(tasks.map((task) => client.get(task)));
      return now.every(({ state }) => state === "running" || state === "throttled") && now;
    });
    return read.find(({ state }) => state === "throttled");
  });
  const { reason, limit } = await client.explain(held);
  assert.deepEqual([reason, limit?.limit, limit?.key], ["held_by_limit", "one-each", held.limitKey]);
  assert.deepEqual([limit?.running, limit?.concurrency], [1, 1]);
});
