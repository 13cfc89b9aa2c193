// Follows one task, over connections that may be lost.
import { create } from "@bufbuild/protobuf";

import { TaskService, WatchTaskRequestSchema } from "./gen/forebay/v1/task_pb.js";
import { ATTEMPTS_MAX, BEGUN_WITHIN_MS, pauseAfter, sleep } from "./backoff.js";
import { changeOf } from "./convert.js";
import { isReset, isTransient } from "./failure.js";
import { isFinal } from "./model.js";
import type { TaskChange } from "./model.js";
import type { CallOptions } from "./options.js";
import type { Channel } from "./rpc.js";

/**
 * Each step of a task up to its final one. The first has to come in good time; after that, every outage is waited out.
 * Only the error of the code `givesUpOn` ends it at once.
 */
export async function* watch<Result>(
  channel: Channel,
  id: string,
  after: string,
  options: CallOptions,
  givesUpOn?: string,
): AsyncGenerator<TaskChange<Result>, void, undefined> {
  const giveUpAt = performance.now() + BEGUN_WITHIN_MS;
  let cursor = after;
  /** The step that was told last, where the server is asked for it again. */
  let told = "";
  let failures = 0;
  for (let heard = false; ; ) {
    let retryAfter: number | undefined;
    let silent = true;
    try {
      const request = create(WatchTaskRequestSchema, { id, after: cursor });
      for await (const answer of channel.stream(TaskService.method.watchTask, request, options)) {
        const change = changeOf<Result>(answer);
        const known = silent && change.cursor === told;
        [silent, heard, failures, cursor] = [false, true, 0, change.cursor];
        if (!known) yield change;
        if (isFinal(change.state)) return;
      }
      // It stops; or the task was final already at this cursor, which shows when it is asked without.
      if (silent) [told, cursor] = [cursor || told, ""];
    } catch (error) {
      const broken = isTransient(error) || (isReset(error) && failures < ATTEMPTS_MAX);
      if (!broken || error.code === givesUpOn || (!heard && performance.now() > giveUpAt)) throw error;
      retryAfter = error.retryAfter;
    }
    failures += 1;
    await sleep(pauseAfter(failures, retryAfter), options.signal);
  }
}
