// A worker and a server of our own, for one test.
import type { TestContext } from "node:test";

import { Worker } from "@forebay/client";
import type { WorkerOptions } from "@forebay/client";
import { Fake } from "./fake.js";
import type { Peer } from "./fake.js";

/** What there is on it. */
export interface Scene {
  readonly fake: Fake;
  readonly worker: Worker;
  /** Begins to run, and returns the server's end of the first stream, welcomed. */
  readonly begin: () => Promise<Peer>;
  /** Settles when the worker has ended. */
  readonly ended: () => Promise<void>;
}

/** Sets it up; it is cleared when the test ends. */
export async function scene(t: TestContext, options: WorkerOptions = {}): Promise<Scene> {
  const fake = await Fake.start();
  const worker = new Worker(fake.url, { logger: null, ...options });
  const stop = new AbortController();
  let running: Promise<void> | undefined;
  t.after(async () => {
    stop.abort();
    fake.stop();
    await running?.catch(() => {});
  });
  const begin = async (): Promise<Peer> => {
    running = worker.run({ handleSignals: false, signal: stop.signal });
    running.catch(() => {});
    const peer = await fake.peer();
    await peer.welcome();
    return peer;
  };
  return { fake, worker, begin, ended: () => running ?? Promise.reject(new Error("it does not run")) };
}
