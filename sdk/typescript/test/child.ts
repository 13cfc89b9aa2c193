// A worker in a process of its own, for tests that end it: `node child.js URL QUEUE`. It tells its parent which task it
// has begun and that it was told to end, and ends the task when it is told to.
import { once } from "node:events";

import { Worker } from "@forebay/client";

const [, , url, queue = "default"] = process.argv;
const worker = new Worker(url, { queues: [queue], concurrency: 1 });

worker.task("slow", async (_, ctx) => {
  process.send?.(ctx.id);
  await once(process, "message", { signal: ctx.signal });
  return process.pid;
});

process.on("SIGTERM", (name) => process.send?.(name));
await worker.run();
// The channel to its parent would keep it.
process.disconnect();
