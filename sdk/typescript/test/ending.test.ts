// How a worker ends, against a server of our own.
import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { create } from "@bufbuild/protobuf";

import { Worker } from "@forebay/client";
import type { TaskStopped } from "@forebay/client";
import { StartIdSchema, StartSchema } from "../dist/gen/forebay/v1/worker_pb.js";
import { Run } from "../dist/run.js";
import { scene } from "./scene.js";
import { Deferred, until } from "./waiting.js";

test("it drains: what runs is finished, and the server ends the stream", async (t) => {
  const { worker, begin, ended } = await scene(t);
  const going = new Deferred();
  worker.task("test", () => going.promise);
  const peer = await begin();
  peer.start("a");
  await until("it runs", () => worker.running === 1);
  worker.drain();
  await peer.next("drain");
  going.resolve();
  const finish = await peer.next("finish");
  assert.equal(finish.outcome.case, "succeeded");
  assert.equal(peer.closed, false, "the server has the last word");
  peer.end();
  await ended();
});

test("what does not finish in time is handed back, at no cost of an attempt", async (t) => {
  const { worker, begin, ended } = await scene(t, { drainTimeout: 50 });
  const reasons: unknown[] = [];
  const late = new Deferred();
  worker
    .task("listens", (_, { signal }) => {
      return new Promise((_resolve, reject) => signal.addEventListener("abort", () => reject(signal.reason as Error)));
    })
    .task("deaf", (_, { signal }) => {
      signal.addEventListener("abort", () => reasons.push((signal.reason as TaskStopped).reason));
      return late.promise;
    });
  const peer = await begin();
  peer.start("a", { kind: "listens" });
  peer.start("b", { kind: "deaf" });
  await until("both run", () => worker.running === 2);
  worker.drain();
  for (const id of ["a", "b"]) {
    const finish = await peer.next("finish");
    assert.deepEqual([finish.id?.taskId, finish.outcome.case], [id, "snoozed"]);
  }
  late.resolve();
  await until("the last handler has ended", () => worker.running === 0);
  peer.end();
  await ended();
  assert.equal(peer.count("finish"), 2, "what was handed back is not answered again");
  assert.deepEqual(reasons, ["shutdown"]);
});

test("a drain meanwhile goes to both streams", async (t) => {
  const { fake, worker, begin, ended } = await scene(t);
  const going = new Deferred();
  worker.task("test", () => going.promise);
  const old = await begin();
  old.start("old");
  await until("it runs", () => worker.running === 1);
  old.say({ case: "drain", value: {} });
  const next = await fake.peer();
  await next.welcome();
  next.start("new");
  await until("both run", () => worker.running === 2);
  worker.drain();
  await Promise.all([old.next("drain"), next.next("drain")]);
  going.resolve();
  await Promise.all([old.next("finish"), next.next("finish")]);
  old.end();
  next.end();
  await ended();
});

test("a worker that was drained before it runs ends at once", async () => {
  const worker = new Worker("http://127.0.0.1:1", { logger: null }).task("a", () => {});
  await worker.run({ signal: AbortSignal.abort() });
  await assert.rejects(worker.run(), /runs already/);
});

test("what the server had on its way when the time was over is handed back, and not begun", async (t) => {
  const { worker, begin, ended } = await scene(t, { drainTimeout: 0 });
  const begun: string[] = [];
  const [stopped, late] = [new Deferred(), new Deferred()];
  worker.task("test", (_, { id, signal }) => {
    begun.push(id);
    signal.addEventListener("abort", () => stopped.resolve());
    return late.promise;
  });
  const peer = await begin();
  peer.start("a");
  await until("it runs", () => worker.running === 1);
  worker.drain();
  await stopped.promise;
  peer.start("b");
  peer.start("c", { kind: "stranger" });
  for (const id of ["b", "c", "a"]) {
    const finish = await peer.next("finish");
    assert.deepEqual([finish.id?.taskId, finish.outcome.case], [id, "snoozed"]);
  }
  late.resolve();
  peer.end();
  await ended();
  assert.deepEqual(begun, ["a"]);
});

test("a second drain hands back at once what runs, and one that is heard twice is one", async (t) => {
  const { worker, begin, ended } = await scene(t);
  const stopped = new Deferred();
  worker.task("test", (_, { signal }) => {
    return new Promise((_resolve, reject) =>
      signal.addEventListener("abort", () => {
        stopped.resolve();
        reject(signal.reason as Error);
      }),
    );
  });
  const peer = await begin();
  peer.start("a");
  await until("it runs", () => worker.running === 1);
  worker.drain();
  worker.drain();
  await peer.next("drain");
  assert.equal(peer.count("finish"), 0);
  assert.equal(worker.running, 1);
  worker.drain();
  await stopped.promise;
  assert.equal((await peer.next("finish")).outcome.case, "snoozed");
  peer.end();
  await ended();
});

test("a task that was never told to stop is handed back at no cost", () => {
  const id = { taskId: "a", fence: 1 };
  const run = new Run(create(StartSchema, { id, kind: "test" }), create(StartIdSchema, id), () => {});
  assert.equal(run.unfinished().case, "snoozed");
});

// These wait for what takes seconds, all at once.
describe("in time", { concurrency: true }, () => {
  test("what finds no place is handed back, to start again a little later", async (t) => {
    const { worker, begin } = await scene(t, { concurrency: 1 });
    const going = new Deferred();
    const begun: string[] = [];
    worker.task("test", (_, { id }) => {
      begun.push(id);
      return going.promise;
    });
    const peer = await begin();
    peer.start("a");
    peer.start("b");
    const { id, outcome } = await peer.next("finish");
    assert.ok(outcome.case === "snoozed");
    assert.deepEqual([id?.taskId, outcome.value.delay?.seconds], ["b", 1n]);
    going.resolve();
    assert.equal((await peer.next("finish")).id?.taskId, "a");
    assert.deepEqual(begun, ["a"]);
  });

  test("a server that does not end the stream is waited for no longer than the drain may take", async (t) => {
    const warnings: string[] = [];
    const logger = { info: () => {}, warn: (line: string) => void warnings.push(line) };
    const { worker, begin, ended } = await scene(t, { drainTimeout: "11s", logger });
    worker.task("test", () => {});
    const peer = await begin();
    peer.start("first");
    await peer.next("finish");
    const before = performance.now();
    worker.drain();
    await peer.next("drain");
    // It goes on as if it had not heard.
    peer.start("a");
    assert.equal((await peer.next("finish")).outcome.case, "succeeded");
    await ended();
    const took = performance.now() - before;
    assert.ok(took >= 10_900 && took < 16_000, `${took} ms`);
    assert.deepEqual(warnings.map((line) => line.includes("has not ended the stream")), [true]);
  });
});
