// What both Node adapters share: the payload, the producers, and the notes of the latency run.
// The protocol is in ../README.md.

import { appendFileSync } from "node:fs";

export const database = process.env.BENCH_DATABASE;

const filler = "x".repeat(200);
const waits = process.env.BENCH_WAITS;

// About 256 bytes of JSON. `sent` is the microsecond in which the task was due, 0 where nobody asks.
export const payload = (number, sent = 0) => ({ number, customer: "4711", sent, filler });

const unixMicros = () => Math.round((performance.timeOrigin + performance.now()) * 1000);

// The task itself: nothing, except that the latency run wants to know how long it waited.
export function handle({ sent }) {
  if (sent > 0) appendFileSync(`${waits}.${process.pid}`, `${unixMicros() - sent}\n`);
}

const quantile = (sorted, q) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * q))] ?? 0;

async function single(submit, seconds, producers, most) {
  const took = [];
  const began = performance.now();
  let next = 0;
  const producer = async () => {
    while (next < most && performance.now() - began < seconds * 1000) {
      const sent = performance.now();
      await submit(payload(next++));
      took.push(performance.now() - sent);
    }
  };
  await Promise.all(Array.from({ length: producers }, producer));
  const total = (performance.now() - began) / 1000;
  took.sort((a, b) => a - b);
  return { count: took.length, seconds: total, p50_ms: quantile(took, 0.5), p99_ms: quantile(took, 0.99) };
}

async function bulk(submitMany, seconds, chunk, most) {
  const began = performance.now();
  let count = 0;
  const caller = async () => {
    while (count < most && performance.now() - began < seconds * 1000) {
      const first = count;
      count += Math.min(chunk, most - first);
      await submitMany(Array.from({ length: count - first }, (_, index) => payload(first + index)));
    }
  };
  await Promise.all([caller(), caller()]);
  return { count, seconds: (performance.now() - began) / 1000 };
}

// Every task at its appointed time, whatever became of those before. Being up to 2 ms late is the timer's fault, and
// nobody's wait.
async function openLoop(submit, rate, seconds, warmUp) {
  const began = performance.now() + 50;
  const sending = [];
  for (let number = 0; number < rate * (seconds + warmUp); number++) {
    const due = began + (number * 1000) / rate;
    const left = due - performance.now();
    if (left > 0) await new Promise((done) => setTimeout(done, left));
    const from = performance.now() - due < 2 ? performance.now() : due;
    const sent = number < rate * warmUp ? 0 : Math.round((performance.timeOrigin + from) * 1000);
    sending.push(submit(payload(number, sent)));
  }
  await Promise.all(sending);
  return { count: sending.length, seconds };
}

// Runs the command that the harness asks for.
export async function main({ prepare, connect, work }) {
  const [command, ...rest] = process.argv.slice(2);
  const [a, b, c] = rest.map(Number);
  if (command === "prepare") return prepare();
  if (command === "work") return work();
  const { submit, submitMany, close } = await connect();
  await submitMany([]);
  const runs = {
    single: () => single(submit, a, b, c),
    bulk: () => bulk(submitMany, a, b, c),
    "open-loop": () => openLoop(submit, a, b, c),
  };
  console.log(JSON.stringify(await runs[command]()));
  await close();
}
