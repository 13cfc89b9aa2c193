// Queues and schedules against a real server.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { Client, InvalidRequestError, NotFoundError } from "@forebay/client";
import type { NewSchedule } from "@forebay/client";
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

test("a queue is counted", async () => {
  await client.submit("echo", 1, { queue: "counted", delay: "1h" });
  const counted = await until("the task is counted", async () => {
    const queues = await client.queues.list();
    return queues.find(({ name, scheduled }) => name === "counted" && scheduled === 1);
  });
  assert.deepEqual([counted.ready, counted.running, counted.paused, counted.stale], [0, 0, false, false]);
  assert.equal(counted.problem, undefined);
  assert.ok(Math.abs(counted.at.getTime() - Date.now()) < 60_000);
});

test("a paused queue starts nothing", async () => {
  const notThere = (error: unknown): boolean => error instanceof NotFoundError && error.code === "queue_not_found";
  await assert.rejects(client.queues.get("resting"), notThere);
  await assert.rejects(client.queues.resume("resting"), notThere);
  assert.equal((await client.queues.pause("resting")).paused, true);
  assert.equal((await client.queues.pause("resting")).paused, true);
  const task = await client.submit("echo", 1, { queue: "resting" });
  assert.equal((await client.get(task)).state, "queued");
  assert.equal((await client.queues.get("resting")).paused, true);
  assert.equal((await client.queues.resume("resting")).paused, false);
  await assert.rejects(client.queues.pause("No!"), InvalidRequestError);
  const reason = new Error("enough");
  await assert.rejects(client.queues.list({ signal: AbortSignal.abort(reason) }), reason);
});

test("a schedule is put, read and deleted", async () => {
  const schedule: NewSchedule = {
    cron: "*/30 8-17 * * mon-fri",
    timeZone: "Europe/Berlin",
    task: { kind: "echo", payload: { days: 1 }, queue: "slow", tags: ["a"], maxAttempts: 3, timeout: "1m" },
    overlap: "queue",
    catchUp: "1h",
    jitter: 1_500,
  };
  const made = await client.schedules.put("office", schedule);
  assert.deepEqual([made.name, made.cron, made.timeZone], ["office", schedule.cron, "Europe/Berlin"]);
  assert.deepEqual([made.overlap, made.catchUp, made.jitter, made.paused], ["queue", 3_600_000, 1_500, false]);
  const { kind, payload, queue, tags, maxAttempts, timeout } = made.task;
  assert.deepEqual([kind, payload, queue, tags, maxAttempts, timeout], ["echo", { days: 1 }, "slow", ["a"], 3, 60_000]);
  assert.equal(made.next.length, 5);
  assert.ok(made.next[0] !== undefined && made.next[0].getTime() > Date.now());
  assert.deepEqual([made.lastTick, made.lastTaskId], [undefined, undefined]);
  assert.deepEqual(await client.schedules.get("office"), made);
  assert.equal((await client.schedules.get("office", { upcoming: 2 })).next.length, 2);
  assert.deepEqual(await client.schedules.put("office", { ...made, overlap: "queue" }), made, "the same again changes nothing");
  await client.schedules.put("other", schedule);
  const names = (await collect(client.schedules.list({ pageSize: 1 }))).map(({ name }) => name);
  assert.deepEqual(names, ["office", "other"]);
  await client.schedules.delete("office");
  await client.schedules.delete("other");
  await assert.rejects(client.schedules.delete("office"), (error) => {
    return error instanceof NotFoundError && error.code === "schedule_not_found";
  });
});

test("a schedule rests, and goes on", async () => {
  const made = await client.schedules.put("beat", { cron: "* * * * * *", task: { kind: "echo" }, overlap: "allow", paused: true });
  assert.deepEqual([made.paused, made.next], [true, []]);
  const resumed = await client.schedules.resume("beat");
  assert.deepEqual([resumed.paused, resumed.overlap], [false, "allow"]);
  const last = await until("it has ticked", async () => (await client.schedules.get("beat")).lastTaskId);
  assert.equal((await client.get(last)).kind, "echo");
  assert.equal((await client.schedules.pause("beat")).paused, true);
  await client.schedules.delete("beat");
});

test("all that is wrong with a schedule is told", async () => {
  const wrong = client.schedules.put("wrong", { cron: "never", timeZone: "Mars/Olympus", task: { kind: "Two Words" } });
  await assert.rejects(wrong, (error) => {
    assert.ok(error instanceof InvalidRequestError);
    const fields = error.violations.map(({ field }) => field).sort();
    assert.deepEqual(fields, ["spec.cron", "spec.task.kind", "spec.time_zone"]);
    return true;
  });
  const overlap = "sometimes" as "skip";
  await assert.rejects(client.schedules.put("wrong", { cron: "* * * * *", task: { kind: "echo" }, overlap }), TypeError);
});

test("a limit is put, read and deleted", async () => {
  const rate = { count: 10, per: "2s", burst: 3 } as const;
  const made = await client.limits.put("gentle", { queue: "slow", kind: "echo", byKey: true, concurrency: 2, rate });
  assert.deepEqual([made.name, made.queue, made.kind, made.byKey], ["gentle", "slow", "echo", true]);
  assert.deepEqual([made.concurrency, made.rate], [2, { count: 10, per: 2_000, burst: 3 }]);
  const read = await client.limits.get("gentle");
  assert.deepEqual([read.running, read.waiting, read.createdAt], [0, 0, made.createdAt]);
  const replaced = await client.limits.put("gentle", { concurrency: 1 });
  assert.deepEqual([replaced.queue, replaced.kind, replaced.byKey, replaced.rate], [undefined, undefined, false, undefined]);
  assert.deepEqual((await collect(client.limits.list({ pageSize: 1 }))).map(({ name }) => name), ["gentle"]);
  await client.limits.delete("gentle");
  await assert.rejects(client.limits.get("gentle"), (error) => {
    return error instanceof NotFoundError && error.code === "limit_not_found";
  });
  await assert.rejects(client.limits.put("gentle", {}), InvalidRequestError);
});
