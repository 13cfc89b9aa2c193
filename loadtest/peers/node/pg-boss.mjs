// pg-boss: batches, burst polling while they come back full, and LISTEN/NOTIFY for a lone task.

import { PgBoss } from "pg-boss";
import { database, handle, main } from "./common.mjs";

const queue = "noop";

const open = (options) => new PgBoss({ connectionString: database, max: 32, ...options });

await main({
  async prepare() {
    const boss = open({});
    await boss.start();
    await boss.createQueue(queue, { notify: true });
    await boss.stop();
  },

  async connect() {
    const boss = open({ supervise: false, schedule: false });
    await boss.start();
    return {
      submit: (task) => boss.send(queue, task),
      submitMany: (tasks) => (tasks.length > 0 ? boss.insert(queue, tasks.map((data) => ({ data }))) : null),
      close: () => boss.stop({ graceful: false }),
    };
  },

  async work() {
    const boss = open({ useListenNotify: true });
    boss.on("error", (error) => console.error(error));
    await boss.start();
    const options = { batchSize: 200, localConcurrency: 2, burstWhenBatchFull: true, pollingIntervalSeconds: 0.5 };
    await boss.work(queue, options, async (jobs) => jobs.forEach((job) => handle(job.data)));
  },
});
