import assert from "node:assert/strict";
import { test } from "node:test";
import { inspect } from "node:util";

import * as grpc from "@grpc/grpc-js";

import {
  ApiError,
  Client,
  ConflictError,
  IdempotencyKeyReusedError,
  InvalidRequestError,
  OverloadedError,
  RequestTimeoutError,
  RetryAfter,
  Snooze,
  UnavailableError,
} from "@forebay/client";
import { RetryBudget, pauseAfter, sleep } from "../dist/backoff.js";
import { dateOf, submission, timestamp } from "../dist/convert.js";
import { durationMessage, durationOf, milliseconds } from "../dist/duration.js";
import type { Duration } from "../dist/duration.js";
import { errorOfCall, isUntouched } from "../dist/failure.js";
import { Gate } from "../dist/gate.js";
import { decodeJson, encodeJson } from "../dist/json.js";
import { addressOf } from "../dist/rpc.js";
import { describe, headOf, tailOf } from "../dist/text.js";
import { refusal } from "./details.js";

test("durations are milliseconds or text", () => {
  const cases: [Duration, number][] = [
    [0, 0],
    [1.5, 1.5],
    ["250ms", 250],
    ["1.5s", 1_500],
    ["5m", 300_000],
    ["2h", 7_200_000],
    ["1d", 86_400_000],
  ];
  for (const [duration, ms] of cases) assert.equal(milliseconds(duration, "x"), ms);
  for (const wrong of [-1, Number.NaN, Infinity, "-1s", "s", "1 s", "1w", "", "1e3s"]) {
    assert.throws(() => milliseconds(wrong as Duration, "delay"), /^RangeError: delay: /, String(wrong));
  }
});

test("durations come back from messages", () => {
  for (const ms of [0, 1, 999, 1_000, 1_500, 86_400_000, 0.5]) assert.equal(durationOf(durationMessage(ms)), ms);
  assert.deepEqual(durationMessage(1_999.9999999), { seconds: 2n, nanos: 0 });
});

test("times come back from messages", () => {
  for (const text of ["1969-12-31T23:59:59.500Z", "2026-11-22T03:44:05.123Z"]) {
    assert.equal(dateOf(timestamp(new Date(text), "x")).toISOString(), text);
  }
  assert.throws(() => timestamp(new Date(Number.NaN), "x"), RangeError);
});

test("JSON says what it can, and refuses the rest", () => {
  for (const value of [null, 0, "ä", [1, { a: null }]]) assert.deepEqual(decodeJson(encodeJson(value)), value);
  assert.equal(encodeJson(undefined).length, 0);
  assert.equal(decodeJson(new Uint8Array()), null);
  assert.throws(() => encodeJson(() => 1), TypeError);
  assert.throws(() => encodeJson(1n), TypeError);
});

test("texts are cut between characters", () => {
  assert.equal(headOf("aäb", 2), "a");
  assert.equal(headOf("aäb", 3), "aä");
  assert.equal(tailOf("aäb", 2), "b");
  assert.equal(tailOf("aäb", 3), "äb");
  assert.equal(tailOf("abc", 3), "abc");
});

test("errors are put into words with their causes", () => {
  assert.equal(describe(new Error("no", { cause: new TypeError("not a number") })), "no: TypeError: not a number");
  assert.equal(describe(new RangeError()), "RangeError");
  assert.equal(describe("gone"), "gone");
  assert.match(describe(Object.create(null)), /null prototype/);
  const circle = new Error("round");
  circle.cause = circle;
  assert.equal(describe(circle), "round: round: round: round: round");
});

test("addresses are read, and mistakes are told", () => {
  assert.deepEqual(addressOf("http://127.0.0.1:50051"), { target: "127.0.0.1:50051", secure: false });
  assert.deepEqual(addressOf("https://forebay.example"), { target: "forebay.example:443", secure: true });
  assert.deepEqual(addressOf("forebay:50051"), { target: "forebay:50051", secure: false });
  assert.deepEqual(addressOf("http://[::1]:50051"), { target: "[::1]:50051", secure: false });
  const ports = ["http://h", "h", "http://h:80", "h:80", "http://h:443", "https://h:80", "http://[::1]", "http://h/"];
  assert.deepEqual(
    ports.map((url) => addressOf(url).target),
    ["h:50051", "h:50051", "h:80", "h:80", "h:443", "h:80", "[::1]:50051", "h:50051"],
  );
  for (const wrong of ["", "http://", "ftp://x", "http://h/path", "a b", "http://h?a=b", "h#x", "http://user@h"]) {
    assert.throws(() => addressOf(wrong), TypeError, wrong);
  }
  for (const secret of ["https://me:secret@h", "me:secret@h:50051", "http://:secret@h/path"]) {
    assert.throws(() => addressOf(secret), (error) => error instanceof TypeError && !error.message.includes("secret"));
  }
});

test("settings for TLS are never dropped in silence", () => {
  assert.equal(addressOf("https://h", { ca: "" }).secure, true);
  for (const plain of ["http://h", "h:50051"]) {
    assert.throws(() => addressOf(plain, { ca: "" }), /^TypeError: tls needs/);
    assert.throws(() => new Client(plain, { tls: {} }), /^TypeError: tls needs/);
  }
});

test("a submission has one time at most", () => {
  assert.throws(() => submission({ kind: "k", runAt: new Date(), delay: "1s" }), TypeError);
});

test("what may be left out may be null, and many come from anything that gives them", () => {
  const options = [
    ...["queue", "priority", "tags", "runAt", "delay", "maxAttempts", "timeout", "idempotencyKey", "project", "expiresAt"],
    ...["scheduleToStartTimeout", "heartbeatTimeout", "retry", "limitKey", "unique", "after", "onDependencyFailure", "notify"],
  ];
  const none = Object.fromEntries(options.map((name) => [name, null])) as object;
  assert.deepEqual(submission({ kind: "k", ...none }), submission({ kind: "k" }));
  const parts = { retry: { base: null, factor: null, cap: null, delays: null }, unique: { key: null, window: null } };
  assert.deepEqual(submission({ kind: "k", ...(parts as object) }), submission({ kind: "k", retry: {}, unique: {} }));
  const many = { tags: new Set(["a", "b"]), notify: ["c"].values() };
  const { tags, notify } = submission({ kind: "k", ...(many as object) });
  assert.deepEqual([tags, notify], [["a", "b"], ["c"]]);
});

test("pauses grow, are spread, and honour the server", () => {
  assert.equal(pauseAfter(1, undefined, 0), 0);
  assert.equal(pauseAfter(1, undefined, 1), 200);
  assert.equal(pauseAfter(3, undefined, 0.5), 400);
  assert.equal(pauseAfter(1_000, undefined, 1), 5_000);
  assert.equal(pauseAfter(1, 3_000, 0.5), 3_100);
});

test("retries cannot multiply an outage", () => {
  const budget = new RetryBudget();
  let retries = 0;
  for (let call = 0; call < 1_000; call += 1) {
    budget.deposit();
    for (let retry = 0; retry < 3; retry += 1) if (budget.withdraw()) retries += 1;
  }
  assert.ok(retries >= 100 && retries <= 230, `${retries} retries of 1000 calls`);
});

test("a sleep ends with the signal's reason", async () => {
  const reason = new Error("enough");
  await assert.rejects(sleep(60_000, AbortSignal.abort(reason)), reason);
  const controller = new AbortController();
  const sleeping = sleep(60_000, controller.signal);
  controller.abort(reason);
  await assert.rejects(sleeping, reason);
});

test("errors tell all that the server says", () => {
  const violations = [
    { field: "kind", description: "is wrong" },
    { field: "tags[1]", description: "is too long" },
  ];
  const told = { reason: "invalid_request", violations };
  const invalid = errorOfCall(refusal(grpc.status.INVALID_ARGUMENT, "Not allowed", told));
  assert.ok(invalid instanceof InvalidRequestError && invalid instanceof ApiError);
  assert.deepEqual(
    [invalid.name, invalid.code, invalid.detail, invalid.status, invalid.violations, invalid.retryAfter],
    ["InvalidRequestError", "invalid_request", "Not allowed", "INVALID_ARGUMENT", violations, undefined],
  );
  assert.equal(invalid.message, "Not allowed (invalid_request)\n  kind: is wrong\n  tags[1]: is too long");

  const full = errorOfCall(refusal(grpc.status.RESOURCE_EXHAUSTED, "Full", { reason: "backlog_full", retryAfterMs: 500 }));
  assert.ok(full instanceof OverloadedError && isUntouched(full));
  assert.equal(full.retryAfter, 500);

  const conflict = refusal(grpc.status.FAILED_PRECONDITION, "No", { reason: "state_conflict", state: "running" });
  const refused = errorOfCall(conflict);
  assert.ok(refused instanceof ConflictError);
  assert.equal(refused.state, "running");

  const reused = errorOfCall(refusal(grpc.status.ALREADY_EXISTS, "In use", { reason: "idempotency_key_reused" }));
  assert.ok(reused instanceof IdempotencyKeyReusedError);
});

test("errors that no server of Forebay tells have names, too", () => {
  const gone = errorOfCall(refusal(grpc.status.UNAVAILABLE, "Connection dropped"));
  assert.ok(gone instanceof UnavailableError);
  assert.equal(gone.code, "unreachable");
  assert.equal(isUntouched(gone), false);
  const late = errorOfCall(refusal(grpc.status.DEADLINE_EXCEEDED, "Deadline exceeded"));
  assert.ok(late instanceof RequestTimeoutError);
  assert.equal(late.code, "deadline_exceeded");
  const words = "No connection established. Last error: Error: connect ECONNREFUSED 127.0.0.1:1. Resolution note: ";
  const nobody = errorOfCall(refusal(grpc.status.UNAVAILABLE, words));
  assert.equal(nobody.message, "cannot connect: connect ECONNREFUSED 127.0.0.1:1 (not_connected)");
  assert.ok(!inspect(nobody).includes("Metadata"), inspect(nobody));
  const stranger = errorOfCall(refusal(grpc.status.UNIMPLEMENTED, "Received HTTP status code 404"));
  assert.match(stranger.message, /^there is no gRPC API of Forebay, whose port is 50051 .*: Received HTTP status code 404 /);
  const odd = errorOfCall(refusal(grpc.status.PERMISSION_DENIED, "No"));
  assert.deepEqual([odd.name, odd.code, odd.status], ["ApiError", "permission_denied", "PERMISSION_DENIED"]);
});

test("errors are told apart by their types, too", () => {
  const inWords = (error: ApiError): string => {
    if (error instanceof OverloadedError) return "full";
    // Without types of their own nothing would be left here.
    return error instanceof ConflictError ? `conflict: ${error.state}` : error.code;
  };
  assert.equal(inWords(errorOfCall(refusal(grpc.status.UNAVAILABLE, "gone"))), "unreachable");
});

test("details that make no sense are passed over", () => {
  const error = refusal(grpc.status.INTERNAL, "Broken");
  error.metadata.set("grpc-status-details-bin", Buffer.from([0xff, 0xff, 0xff]));
  assert.equal(errorOfCall(error).code, "internal");
});

test("what a handler throws knows its delay", () => {
  assert.equal(new RetryAfter("30s", "busy").delay, 30_000);
  assert.equal(new Snooze(500).delay, 500);
});

test("the gate lets in so many, and no more of a kind than that allows", async () => {
  const gate = new Gate(2);
  const { signal } = new AbortController();
  const first = await gate.enter("a", 1, signal);
  let [secondIn, thirdIn] = [false, false];
  const second = gate.enter("a", 1, signal).then((leave) => ((secondIn = true), leave));
  const other = await gate.enter("b", 2, signal);
  const third = gate.enter("b", 2, signal).then((leave) => ((thirdIn = true), leave));
  await Promise.resolve();
  assert.deepEqual([gate.inside, secondIn, thirdIn], [2, false, false]);
  other?.();
  const thirdLeave = await third;
  assert.deepEqual([gate.inside, secondIn, thirdIn], [2, false, true], "the kind a is full, so b passes");
  first?.();
  first?.();
  const secondLeave = await second;
  assert.equal(gate.inside, 2, "who leaves twice leaves once");
  const empty = gate.empty();
  secondLeave?.();
  thirdLeave?.();
  await empty;
  assert.equal(gate.inside, 0);
});

test("who gives up waiting takes no place", async () => {
  const gate = new Gate(1);
  const leave = await gate.enter("a", 1, new AbortController().signal);
  const waiter = new AbortController();
  const waiting = gate.enter("a", 1, waiter.signal);
  waiter.abort();
  assert.equal(await waiting, undefined);
  leave?.();
  assert.equal(gate.inside, 0);
  assert.equal(await gate.enter("a", 1, AbortSignal.abort()), undefined);
});

test("who finds no place in time gives up, and takes none later", async () => {
  const gate = new Gate(1);
  const { signal } = new AbortController();
  const leave = await gate.enter("a", 1, signal);
  assert.equal(await gate.enter("a", 1, signal, 1), undefined);
  leave?.();
  assert.equal(gate.inside, 0);
});
