// Graphile Worker, tuned as its "Performance" and "Scaling" pages say: a local queue, batched completion.

import { Logger, makeWorkerUtils, run, runMigrations } from "graphile-worker";
import pg from "pg";
import { database, handle, main } from "./common.mjs";

const concurrentJobs = 24;

// It would write a line for each task.
const logger = new Logger(() => () => {});

await main({
  prepare: () => runMigrations({ connectionString: database }),

  async connect() {
    const pgPool = new pg.Pool({ connectionString: database, max: 32 });
    pgPool.on("error", (error) => console.error(error));
    pgPool.on("connect", (client) => client.on("error", (error) => console.error(error)));
    const utils = await makeWorkerUtils({ pgPool, logger });
    return {
      submit: (task) => utils.addJob("noop", task),
      submitMany: (tasks) => utils.addJobs(tasks.map((task) => ({ identifier: "noop", payload: task }))),
      close: async () => {
        await utils.release();
        await pgPool.end();
      },
    };
  },

  async work() {
    const worker = {
      connectionString: database,
      logger,
      concurrentJobs,
      maxPoolSize: concurrentJobs + 2,
      localQueue: { size: 500 },
      completeJobBatchDelay: 0,
      failJobBatchDelay: 0,
    };
    const runner = await run({ preset: { worker }, taskList: { noop: async (task) => handle(task) } });
    await runner.promise;
  },
});
