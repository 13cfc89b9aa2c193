// The worker against a server of our own, which says what it likes.
import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

import * as grpc from "@grpc/grpc-js";

import { InvalidRequestError, Permanent, RetryAfter, Snooze, TaskStopped, Worker } from "@forebay/client";
import type { TaskContext } from "@forebay/client";
import { Stop_Reason } from "../dist/gen/forebay/v1/worker_pb.js";
import { refusal } from "./details.js";
import { Fake } from "./fake.js";
import { scene } from "./scene.js";
import { Deferred, until } from "./waiting.js";

const decoder = new TextDecoder();

test("it says who it is and what it can do", async (t) => {
  const { fake, worker } = await scene(t, { queues: ["default", "mail"], concurrency: 7, name: "me" });
  worker.task("resize", { timeout: "90s", maxAttempts: 3, concurrency: 2 }, () => {}).task("echo", () => {});
  const running = worker.run({ handleSignals: false });
  const peer = await fake.peer();
  const hello = await peer.next("hello");
  assert.deepEqual([hello.name, hello.queues, hello.slots], ["me", ["default", "mail"], 7]);
  assert.match(hello.sdk, /^forebay-typescript\/\d/);
  const kinds = hello.kinds.map((kind) => [kind.kind, kind.timeout?.seconds, kind.maxAttempts, kind.concurrency]);
  assert.deepEqual(kinds, [
    ["resize", 90n, 3, 2],
    ["echo", undefined, undefined, undefined],
  ]);
  worker.drain();
  await running;
});

test("what a handler returns or throws becomes the outcome", async (t) => {
  const { worker, begin } = await scene(t);
  worker
    .task("doubles", (payload: { n: number }) => ({ doubled: payload.n * 2 }))
    .task("nothing", async () => {})
    .task("breaks", () => {
      throw new RangeError("too far", { cause: new Error("no map") });
    })
    .task("permanent", () => {
      throw new Permanent("no such file");
    })
    .task("busy", () => {
      throw new RetryAfter("1.5s", "they are busy");
    })
    .task("early", () => {
      throw new Snooze("2m");
    })
    .task("odd", () => 1n)
    .task("huge", () => "x".repeat(262_143));
  const peer = await begin();
  const run = async (kind: string, payload: unknown = null) => {
    peer.start(`task-${kind}`, { kind, payload: Buffer.from(JSON.stringify(payload)) });
    const finish = await peer.next("finish");
    assert.deepEqual([finish.id?.taskId, finish.id?.fence], [`task-${kind}`, 1]);
    return finish.outcome;
  };

  const doubled = await run("doubles", { n: 21 });
  assert.ok(doubled.case === "succeeded");
  assert.equal(decoder.decode(doubled.value.result), '{"doubled":42}');
  const nothing = await run("nothing");
  assert.ok(nothing.case === "succeeded");
  assert.equal(nothing.value.result.length, 0);
  const broken = await run("breaks");
  assert.ok(broken.case === "failed");
  assert.deepEqual([broken.value.message, broken.value.permanent], ["RangeError: too far: no map", false]);
  const permanent = await run("permanent");
  assert.ok(permanent.case === "failed");
  assert.deepEqual([permanent.value.message, permanent.value.permanent], ["no such file", true]);
  const busy = await run("busy");
  assert.ok(busy.case === "failed");
  assert.deepEqual([busy.value.message, busy.value.permanent], ["they are busy", false]);
  assert.deepEqual([busy.value.retryAfter?.seconds, busy.value.retryAfter?.nanos], [1n, 500_000_000]);
  const early = await run("early");
  assert.ok(early.case === "snoozed");
  assert.equal(early.value.delay?.seconds, 120n);
  for (const kind of ["odd", "huge"]) {
    const outcome = await run(kind);
    assert.ok(outcome.case === "failed" && outcome.value.permanent, kind);
    assert.match(outcome.value.message, /^the result /);
  }
  const stranger = await run("stranger");
  assert.ok(stranger.case === "failed");
  assert.match(stranger.value.message, /no handler for stranger/);
});

test("what throws when it is looked at is a failed attempt, and gives its place back", async (t) => {
  const { worker, begin } = await scene(t, { concurrency: 1 });
  class Odd extends Error {
    override get message(): string {
      throw new Error("never");
    }
  }
  const odd = new Proxy({}, { getPrototypeOf: () => assert.fail("never") });
  worker.task("test", (_, { id }) => {
    if (id === "a") throw new Odd();
    if (id === "b") throw odd;
  });
  const peer = await begin();
  for (const id of ["a", "b"]) {
    peer.start(id);
    const { outcome } = await peer.next("finish");
    assert.ok(outcome.case === "failed" && !outcome.value.permanent);
    assert.match(outcome.value.message, /cannot be put into words/);
  }
  peer.start("c");
  assert.equal((await peer.next("finish")).outcome.case, "succeeded");
  assert.equal(worker.running, 0);
});

test("a handler is given all that is known of its task", async (t) => {
  const { worker, begin } = await scene(t);
  const given = new Deferred<[unknown, TaskContext]>();
  worker.task("look", (payload, ctx) => given.resolve([payload, ctx]));
  const peer = await begin();
  const before = Date.now();
  peer.start("task-1", {
    id: { taskId: "task-1", fence: 4 },
    kind: "look",
    queue: "mail",
    project: "shop",
    payload: Buffer.from('{"a":[1]}'),
    attempt: 2,
    maxAttempts: 3,
    timeout: { seconds: 10n },
    traceparent: "00-1-2-01",
  });
  const [payload, ctx] = await given.promise;
  assert.deepEqual(payload, { a: [1] });
  const { id, kind, queue, project, attempt, maxAttempts, fence, timeout, traceparent } = ctx;
  assert.deepEqual([id, kind, queue, project], ["task-1", "look", "mail", "shop"]);
  assert.deepEqual([attempt, maxAttempts, fence, timeout, traceparent], [2, 3, 4, 10_000, "00-1-2-01"]);
  assert.ok(ctx.deadline.getTime() >= before + 10_000 && ctx.deadline.getTime() <= Date.now() + 10_000);
  assert.equal(ctx.signal.aborted, false);
});

test("progress and log lines are gathered, and told before the outcome", async (t) => {
  const { worker, begin } = await scene(t);
  const told = new Deferred();
  worker.task("test", async (_, { log, progress }) => {
    for (let step = 1; step <= 100; step += 1) progress(step / 200, `step ${step}`);
    log("one");
    log("two\nthree");
    await told.promise;
    progress(7, "ä".repeat(200));
    log("x".repeat(20_000));
  });
  const peer = await begin();
  peer.start("a");
  const lines = await peer.next("logLines");
  assert.deepEqual(lines.lines, ["one", "two", "three"]);
  const progress = await peer.next("progress");
  assert.deepEqual([progress.id?.taskId, progress.fraction, progress.message], ["a", 0.5, "step 100"]);
  told.resolve();
  await peer.next("finish");
  assert.deepEqual([peer.count("progress"), peer.count("logLines")], [2, 2]);
  const [, last] = peer.said.filter((said) => said.case === "progress");
  assert.deepEqual([last?.value.fraction, last?.value.message], [1, "ä".repeat(128)]);
  const [, tail] = peer.said.filter((said) => said.case === "logLines");
  assert.ok(tail !== undefined && tail.value.lines.join("\n").length <= 8_192);
  const order = peer.said.map((said) => said.case).filter((sort) => sort !== "heartbeat");
  assert.equal(order.at(-1), "finish");
});

test("a handler that says nothing else says that it is alive", async (t) => {
  const { fake, worker } = await scene(t);
  const release = new Deferred();
  const timeouts = new Map<string, number | undefined>();
  worker.task("test", { heartbeatTimeout: "1500ms" }, async (payload, { id, heartbeat, heartbeatTimeout, progress }) => {
    timeouts.set(id, heartbeatTimeout);
    for (let n = 0; n < 1_000; n += 1) heartbeat();
    if (payload === "talks") progress(0.5);
    await release.promise;
  });
  const running = worker.run({ handleSignals: false });
  const peer = await fake.peer();
  const hello = await peer.welcome();
  assert.deepEqual([hello.kinds[0]?.heartbeatTimeout?.seconds, hello.kinds[0]?.heartbeatTimeout?.nanos], [1n, 5e8]);
  peer.start("a", { heartbeatTimeout: { seconds: 2n, nanos: 0 } });
  peer.start("b");
  peer.start("c", { payload: new TextEncoder().encode('"talks"') });
  const { alive } = await peer.next("heartbeat");
  assert.deepEqual(alive.map(({ taskId, fence }) => [taskId, fence]), [["a", 1], ["b", 1]], "progress says it by the way");
  release.resolve();
  await until("all have finished", () => peer.count("finish") === 3);
  assert.equal(peer.count("heartbeat"), 1);
  assert.deepEqual([...timeouts], [["a", 2_000], ["b", undefined], ["c", undefined]]);
  worker.drain();
  await until("it drains", () => peer.count("drain") === 1);
  peer.end();
  await running;
});

test("what has little time to be heard is heard in time", async (t) => {
  const { worker, begin } = await scene(t);
  const heard = new AbortController();
  worker.task("test", async (_, { heartbeat }) => {
    while (!heard.signal.aborted) {
      heartbeat();
      await sleep(5);
    }
  });
  const peer = await begin();
  peer.start("a", { heartbeatTimeout: { seconds: 0n, nanos: 80_000_000 } });
  await peer.next("heartbeat");
  const began = performance.now();
  for (let n = 0; n < 30; n += 1) await peer.next("heartbeat");
  const took = performance.now() - began;
  heard.abort();
  await peer.next("finish");
  assert.ok(took < 3_000, `30 words took ${took} ms, and would take 6,000 where each waits for 200 ms`);
});

test("who waits for a place is not timed out for its silence", async (t) => {
  const { worker, begin } = await scene(t, { concurrency: 1 });
  const release = new Deferred();
  worker.task("test", () => release.promise);
  const peer = await begin();
  peer.start("a");
  // A server that counts otherwise: what runs on another stream, say.
  peer.start("b", { heartbeatTimeout: { seconds: 1n, nanos: 0 } });
  const began = performance.now();
  const { id, outcome } = await peer.next("finish");
  const took = performance.now() - began;
  release.resolve();
  assert.deepEqual([id?.taskId, outcome.case], ["b", "snoozed"]);
  assert.ok(took < 3_000, `it waited for ${took} ms`);
});

test("the stack of a failure is logged", async (t) => {
  const { worker, begin } = await scene(t);
  worker.task("test", () => {
    throw new Error("here");
  });
  const peer = await begin();
  peer.start("a");
  const { lines } = await peer.next("logLines");
  assert.equal(lines[0], "Error: here");
  assert.match(lines[1] ?? "", /worker\.test/);
});

test("it says that it is alive as often as it was told to", async (t) => {
  const { fake, worker } = await scene(t);
  worker.task("test", () => {});
  const running = worker.run({ handleSignals: false });
  const peer = await fake.peer();
  await peer.welcome(20);
  await until("five heartbeats", () => peer.count("heartbeat") >= 5);
  worker.drain();
  await peer.next("drain");
  peer.end();
  await running;
});

test("a handler is told to stop, and why", async (t) => {
  const { worker, begin } = await scene(t);
  const reasons: unknown[] = [];
  worker.task("test", async (_, { signal }) => {
    await new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve()));
    reasons.push(signal.reason);
    signal.throwIfAborted();
  });
  const peer = await begin();
  for (const [index, reason] of [Stop_Reason.CANCELLED, Stop_Reason.TIMED_OUT, Stop_Reason.SHUTDOWN].entries()) {
    const id = { taskId: `task-${index}`, fence: 1 };
    peer.start(id.taskId);
    await until("it runs", () => worker.running === 1);
    // Another start of the same task is not meant.
    peer.say({ case: "stop", value: { id: { taskId: id.taskId, fence: 9 }, reason } });
    peer.say({ case: "stop", value: { id, reason } });
    const finish = await peer.next("finish");
    assert.equal(finish.id?.taskId, id.taskId);
    assert.equal(finish.outcome.case, reason === Stop_Reason.SHUTDOWN ? "snoozed" : "failed");
  }
  const why = reasons.map((reason) => (reason instanceof TaskStopped ? reason.reason : reason));
  assert.deepEqual(why, ["cancelled", "timed_out", "shutdown"]);
});

test("what succeeds after it was told to stop has succeeded", async (t) => {
  const { worker, begin } = await scene(t);
  worker.task("test", async (_, { signal }) => {
    await new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve()));
    return "done all the same";
  });
  const peer = await begin();
  peer.start("a");
  peer.say({ case: "stop", value: { id: { taskId: "a", fence: 1 }, reason: Stop_Reason.CANCELLED } });
  const finish = await peer.next("finish");
  assert.equal(finish.outcome.case, "succeeded");
});

test("never more handlers run than it was told, whatever a server starts", async (t) => {
  const { worker, begin } = await scene(t, { concurrency: 2 });
  const gates = new Map<string, Deferred>();
  let most = 0;
  worker.task("test", async (_, { id }) => {
    most = Math.max(most, worker.running);
    const gate = new Deferred();
    gates.set(id, gate);
    await gate.promise;
  });
  const peer = await begin();
  for (const id of ["a", "b", "c", "d"]) peer.start(id);
  await until("two run", () => gates.size === 2);
  peer.say({ case: "stop", value: { id: { taskId: "c", fence: 1 }, reason: Stop_Reason.TIMED_OUT } });
  const stopped = await peer.next("finish");
  assert.deepEqual([stopped.id?.taskId, stopped.outcome.case], ["c", "failed"]);
  gates.get("a")?.resolve();
  await until("the next runs", () => gates.has("d"));
  assert.equal(gates.has("c"), false, "what was stopped before it began never begins");
  gates.get("b")?.resolve();
  gates.get("d")?.resolve();
  await until("all have ended", () => peer.count("finish") === 4);
  assert.equal(most, 2);
});

test("where the stream breaks, handlers are told, their outcomes are dropped, and it connects again", async (t) => {
  const { fake, worker, begin } = await scene(t, { concurrency: 1 });
  const [stopped, late] = [new Deferred<unknown>(), new Deferred()];
  worker.task("test", async (_, { id, signal }) => {
    if (id !== "a") return id;
    signal.addEventListener("abort", () => stopped.resolve(signal.reason));
    await late.promise;
    return "too late";
  });
  const peer = await begin();
  peer.start("a");
  await until("it runs", () => worker.running === 1);
  peer.end({ code: grpc.status.UNAVAILABLE, details: "gone" });
  const reason = await stopped.promise;
  assert.ok(reason instanceof TaskStopped);
  assert.equal(reason.reason, "lost");

  const next = await fake.peer();
  const hello = await next.welcome();
  assert.equal(hello.slots, 1);
  next.start("b");
  late.resolve();
  const finish = await next.next("finish");
  assert.equal(finish.id?.taskId, "b");
  assert.equal(peer.count("finish") + next.count("finish"), 1);
});

test("while a server drains, the next stream takes tasks and the old one finishes its own", async (t) => {
  const { fake, worker, begin } = await scene(t);
  const going = new Deferred();
  worker.task("test", async (_, { id }) => {
    if (id === "old") await going.promise;
    return id;
  });
  const old = await begin();
  old.start("old");
  await until("it runs", () => worker.running === 1);
  old.say({ case: "drain", value: {} });
  const next = await fake.peer();
  await next.welcome();
  next.start("new");
  assert.equal((await next.next("finish")).id?.taskId, "new");
  assert.equal(old.closed, false);
  going.resolve();
  assert.equal((await old.next("finish")).id?.taskId, "old");
  old.end();
});

test("a worker that is refused for good rejects, with the reasons", async (t) => {
  const { fake, worker } = await scene(t);
  worker.task("Not A Kind", () => {});
  const running = worker.run({ handleSignals: false });
  const peer = await fake.peer();
  await peer.next("hello");
  const violations = [{ field: "kinds[0].kind", description: "must match [a-z0-9]" }];
  peer.end(refusal(grpc.status.INVALID_ARGUMENT, "Not allowed", { reason: "invalid_request", violations }));
  await assert.rejects(running, (error) => {
    assert.ok(error instanceof InvalidRequestError);
    assert.deepEqual(error.violations, violations);
    return true;
  });
});

test("what refuses a worker that was taken once is waited out", async (t) => {
  const { fake, worker, begin, ended } = await scene(t);
  worker.task("test", () => {});
  const peer = await begin();
  peer.end({ code: grpc.status.UNAVAILABLE, details: "gone" });
  for (const code of [grpc.status.PERMISSION_DENIED, grpc.status.UNIMPLEMENTED]) {
    const wrong = await fake.peer();
    await wrong.next("hello");
    wrong.end({ code, details: "a proxy in between" });
  }
  const next = await fake.peer();
  await next.welcome();
  next.start("a");
  await next.next("finish");
  worker.drain();
  await next.next("drain");
  next.end();
  await ended();
});

test("a server that can take no worker now is asked again, when it wants to be", async (t) => {
  const { fake, worker, begin } = await scene(t);
  worker.task("test", () => {});
  const peer = await begin();
  const wait = { reason: "overloaded", retryAfterMs: 300 };
  const before = performance.now();
  peer.end(refusal(grpc.status.UNAVAILABLE, "No room", wait));
  const next = await fake.peer();
  assert.ok(performance.now() - before >= 290);
  await next.welcome();
});

test("a server that comes later is found, and the log tells of it", async (t) => {
  const { port, stop } = await Fake.start().then((fake) => ({ port: fake.port, stop: () => fake.stop() }));
  stop();
  const lines: string[] = [];
  const tell = (line: string): void => void lines.push(line);
  const worker = new Worker(`http://127.0.0.1:${port}`, { logger: { info: tell, warn: tell } });
  worker.task("test", () => {});
  const running = worker.run({ handleSignals: false });
  await until("it says that nobody is there", () => lines.some((line) => line.includes("no connection to")));
  const fake = await Fake.start({}, port);
  t.after(() => fake.stop());
  const peer = await fake.peer();
  await peer.welcome();
  await until("it says that it is connected", () => lines.some((line) => line.includes("as worker w")));
  worker.drain();
  await peer.next("drain");
  peer.end();
  await running;
});

test("mistakes are told at once", async () => {
  assert.throws(() => new Worker("http://127.0.0.1:1", { concurrency: 0 }), RangeError);
  assert.throws(() => new Worker("no address"), TypeError);
  assert.throws(() => new Worker("http://127.0.0.1:1", { tls: {} }), TypeError);
  const worker = new Worker("http://127.0.0.1:1");
  await assert.rejects(worker.run(), /no handlers/);
  worker.task("a", () => {});
  assert.throws(() => worker.task("a", () => {}), /two handlers/);
  assert.throws(() => worker.task("b", { timeout: "soon" as "1s" }, () => {}), RangeError);
  assert.throws(() => worker.task("b", { maxAttempts: 1.5 }, () => {}), RangeError);
});
