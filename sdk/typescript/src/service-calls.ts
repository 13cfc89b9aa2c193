// The calls of QueueService, ScheduleService and LimitService.
import { create } from "@bufbuild/protobuf";

import {
  DeleteLimitRequestSchema,
  GetLimitRequestSchema,
  LimitService,
  ListLimitsRequestSchema,
  PutLimitRequestSchema,
} from "./gen/forebay/v1/limit_pb.js";
import type { Limit as LimitMessage } from "./gen/forebay/v1/limit_pb.js";
import {
  GetQueueRequestSchema,
  ListQueuesRequestSchema,
  PauseQueueRequestSchema,
  QueueService,
  ResumeQueueRequestSchema,
} from "./gen/forebay/v1/queue_pb.js";
import type { Queue as QueueMessage } from "./gen/forebay/v1/queue_pb.js";
import {
  DeleteScheduleRequestSchema,
  GetScheduleRequestSchema,
  ListSchedulesRequestSchema,
  PauseScheduleRequestSchema,
  PutScheduleRequestSchema,
  ResumeScheduleRequestSchema,
  ScheduleService,
  ScheduleSpecSchema,
  Overlap as WireOverlap,
} from "./gen/forebay/v1/schedule_pb.js";
import type { Schedule as ScheduleMessage, ScheduleSpec } from "./gen/forebay/v1/schedule_pb.js";
import type { Again } from "./again.js";
import { dateOf, scheduledTaskOf, span, submission } from "./convert.js";
import { durationOf } from "./duration.js";
import { isTransient, isUntouched, ownError } from "./failure.js";
import { object, text, whole } from "./input.js";
import type { Limit, NewLimit, NewSchedule, Overlap, Queue, Rate, Schedule } from "./model.js";
import type { Limits, Queues, Schedules } from "./services.js";

const OVERLAPS: Readonly<Record<Overlap, WireOverlap>> = {
  skip: WireOverlap.SKIP,
  queue: WireOverlap.QUEUE,
  allow: WireOverlap.ALLOW,
};
const OVERLAP_NAMES: ReadonlyMap<WireOverlap, Overlap> = new Map(
  Object.entries(OVERLAPS).map(([name, overlap]) => [overlap, name as Overlap]),
);

/** The queues of a server. What is done twice to one is as if it had been done once. */
export function queuesOf(again: Again): Queues {
  const { listQueues, getQueue, pauseQueue, resumeQueue } = QueueService.method;
  return {
    async list(options = {}) {
      const { queues } = await again(listQueues, create(ListQueuesRequestSchema), options, isTransient);
      return queues.map(queueOf);
    },
    async get(name, options = {}) {
      return told(await again(getQueue, create(GetQueueRequestSchema, { name }), options, isTransient));
    },
    async pause(name, options = {}) {
      return told(await again(pauseQueue, create(PauseQueueRequestSchema, { name }), options, isTransient));
    },
    async resume(name, options = {}) {
      return told(await again(resumeQueue, create(ResumeQueueRequestSchema, { name }), options, isTransient));
    },
  };
}

/** The schedules of a server. To put one twice is as if it had been put once. */
export function schedulesOf(again: Again): Schedules {
  const { putSchedule, getSchedule, listSchedules, pauseSchedule, resumeSchedule, deleteSchedule } = ScheduleService.method;
  return {
    async put(name, schedule, options = {}) {
      const request = create(PutScheduleRequestSchema, { name, spec: specOf(schedule) });
      return kept((await again(putSchedule, request, options, isTransient)).schedule);
    },
    async get(name, options = {}) {
      const request = create(GetScheduleRequestSchema, { name, ...whole("upcoming", options.upcoming) });
      return kept((await again(getSchedule, request, options, isTransient)).schedule);
    },
    async *list(options = {}) {
      let pageToken = "";
      do {
        const request = create(ListSchedulesRequestSchema, { ...whole("pageSize", options.pageSize), pageToken });
        const page = await again(listSchedules, request, options, isTransient);
        for (const schedule of page.schedules) yield kept(schedule);
        pageToken = page.nextPageToken;
      } while (pageToken !== "");
    },
    async pause(name, options = {}) {
      return kept((await again(pauseSchedule, create(PauseScheduleRequestSchema, { name }), options, isTransient)).schedule);
    },
    async resume(name, options = {}) {
      return kept((await again(resumeSchedule, create(ResumeScheduleRequestSchema, { name }), options, isTransient)).schedule);
    },
    // The second time it is not there, which would be told as an error.
    async delete(name, options = {}) {
      await again(deleteSchedule, create(DeleteScheduleRequestSchema, { name }), options, isUntouched);
    },
  };
}

/** The limits of a server. */
export function limitsOf(again: Again): Limits {
  const { putLimit, getLimit, listLimits, deleteLimit } = LimitService.method;
  return {
    async put(name, limit, options = {}) {
      const request = create(PutLimitRequestSchema, { name, spec: limitSpecOf(limit) });
      return limitOf((await again(putLimit, request, options, isTransient)).limit);
    },
    async get(name, options = {}) {
      return limitOf((await again(getLimit, create(GetLimitRequestSchema, { name }), options, isTransient)).limit);
    },
    async *list(options = {}) {
      let pageToken = "";
      do {
        const request = create(ListLimitsRequestSchema, { ...whole("pageSize", options.pageSize), pageToken });
        const page = await again(listLimits, request, options, isTransient);
        for (const limit of page.limits) yield limitOf(limit);
        pageToken = page.nextPageToken;
      } while (pageToken !== "");
    },
    // As for a schedule.
    async delete(name, options = {}) {
      await again(deleteLimit, create(DeleteLimitRequestSchema, { name }), options, isUntouched);
    },
  };
}

function limitSpecOf(limit: NewLimit) {
  const { queue, kind, byKey, concurrency, rate } = object(limit, "limit");
  return {
    queue: text(queue, "queue"),
    kind: text(kind, "kind"),
    byKey: byKey ?? false,
    ...whole("concurrency", concurrency),
    ...(rate == null ? {} : { rate: rateMessage(object(rate, "rate")) }),
  };
}

function rateMessage({ count, per, burst }: Rate) {
  return { ...whole("count", count), ...span("per", per), ...whole("burst", burst) };
}

function limitOf(message: LimitMessage | undefined): Limit {
  if (message?.spec === undefined) throw ownError("INTERNAL", "the server answered without the limit");
  const { spec } = message;
  const rate = spec.rate;
  return {
    name: message.name,
    queue: spec.queue || undefined,
    kind: spec.kind || undefined,
    byKey: spec.byKey,
    concurrency: spec.concurrency,
    rate: rate && { count: rate.count, per: rate.per ? durationOf(rate.per) : 0, burst: rate.burst },
    running: figure(message.running),
    waiting: figure(message.waiting),
    createdAt: dateOf(message.createdAt),
    updatedAt: dateOf(message.updatedAt),
  };
}

function figure(count: bigint | undefined): number | undefined {
  return count === undefined ? undefined : Number(count);
}

function told({ queue }: { readonly queue?: QueueMessage | undefined }): Queue {
  if (queue === undefined) throw ownError("INTERNAL", "the server answered without the queue");
  return queueOf(queue);
}

function queueOf(message: QueueMessage): Queue {
  return {
    name: message.name,
    ready: figure(message.ready),
    running: figure(message.running),
    scheduled: figure(message.scheduled),
    paused: message.paused,
    at: dateOf(message.at),
    stale: message.stale,
    problem: message.problem || undefined,
  };
}

function specOf(schedule: NewSchedule): ScheduleSpec {
  const { overlap } = object(schedule, "schedule");
  if (overlap != null && !(overlap in OVERLAPS)) throw new TypeError(`${String(overlap)} is no overlap`);
  return create(ScheduleSpecSchema, {
    cron: schedule.cron,
    timeZone: text(schedule.timeZone, "timeZone"),
    task: submission(schedule.task),
    overlap: overlap == null ? WireOverlap.UNSPECIFIED : OVERLAPS[overlap],
    ...span("catchUp", schedule.catchUp),
    ...span("jitter", schedule.jitter),
    paused: schedule.paused ?? false,
  });
}

function kept(message: ScheduleMessage | undefined): Schedule {
  if (message?.spec === undefined) throw ownError("INTERNAL", "the server answered without the schedule");
  const { spec } = message;
  return {
    name: message.name,
    cron: spec.cron,
    timeZone: spec.timeZone,
    task: scheduledTaskOf(spec.task),
    overlap: OVERLAP_NAMES.get(spec.overlap),
    catchUp: spec.catchUp ? durationOf(spec.catchUp) : 0,
    jitter: spec.jitter ? durationOf(spec.jitter) : 0,
    paused: spec.paused,
    next: message.next.map(dateOf),
    lastTick: message.lastTick && dateOf(message.lastTick),
    lastTaskId: message.lastTaskId || undefined,
    createdAt: dateOf(message.createdAt),
    updatedAt: dateOf(message.updatedAt),
  };
}
