// What a client has beside tasks.
import type { Limit, NewLimit, NewSchedule, Queue, Schedule } from "./model.js";
import type { CallOptions } from "./options.js";

/** The queues of a server. */
export interface Queues {
  /** All that were ever used, by name. */
  list(options?: CallOptions): Promise<readonly Queue[]>;
  /**
   * One of them.
   *
   * @throws NotFoundError where it was never used.
   */
  get(name: string, options?: CallOptions): Promise<Queue>;
  /**
   * Pauses it: its tasks are accepted and kept, and none is started. What runs goes on. A queue that was never used may be
   * paused; to pause one twice changes nothing.
   */
  pause(name: string, options?: CallOptions): Promise<Queue>;
  /**
   * Lets it go on.
   *
   * @throws NotFoundError where it was never used.
   */
  resume(name: string, options?: CallOptions): Promise<Queue>;
}

/** How to read a schedule. */
export interface ScheduleOptions extends CallOptions {
  /** How many of its next ticks to tell, up to 100; five unless said. */
  readonly upcoming?: number | undefined;
}

/** How to list schedules or limits. */
export interface PagesOptions extends CallOptions {
  /** How many to fetch at once, from 1 to 200; 50 unless said. */
  readonly pageSize?: number | undefined;
}

/** The schedules of a server. */
export interface Schedules {
  /** Makes a schedule, or replaces the one of that name as a whole. To put the same again changes nothing. */
  put(name: string, schedule: NewSchedule, options?: CallOptions): Promise<Schedule>;
  /**
   * Reads one, with its next ticks.
   *
   * @throws NotFoundError where there is none.
   */
  get(name: string, options?: ScheduleOptions): Promise<Schedule>;
  /** All of them, by name. Pages are fetched as they are needed. */
  list(options?: PagesOptions): AsyncGenerator<Schedule, void, undefined>;
  /** Lets it rest: no tick is fired, and none of that time is made up for. */
  pause(name: string, options?: CallOptions): Promise<Schedule>;
  /** Lets it go on, with the next tick. */
  resume(name: string, options?: CallOptions): Promise<Schedule>;
  /**
   * Deletes it. The tasks that it has submitted stay.
   *
   * @throws NotFoundError where there is none.
   */
  delete(name: string, options?: CallOptions): Promise<void>;
}

/** The limits of a server. */
export interface Limits {
  /** Makes a limit, or replaces the one of that name as a whole. It holds for whatever is started a second later. */
  put(name: string, limit: NewLimit, options?: CallOptions): Promise<Limit>;
  /**
   * Reads one, and how much it is used.
   *
   * @throws NotFoundError where there is none.
   */
  get(name: string, options?: CallOptions): Promise<Limit>;
  /** All of them, by name. Pages are fetched as they are needed. */
  list(options?: PagesOptions): AsyncGenerator<Limit, void, undefined>;
  /**
   * Deletes it. What it held back goes on.
   *
   * @throws NotFoundError where there is none.
   */
  delete(name: string, options?: CallOptions): Promise<void>;
}
