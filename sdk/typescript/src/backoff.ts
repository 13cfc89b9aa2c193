// How long to wait before something is tried again, and how often it may be: so that a thousand callers of a server
// in trouble do not make four thousand.
import { setTimeout as wait } from "node:timers/promises";

/** How often a call is made, at most. */
export const ATTEMPTS_MAX = 4;
/** No attempt begins later than this after the first, in milliseconds. */
export const BEGUN_WITHIN_MS = 15_000;

const PAUSE_MS = 200;
const PAUSE_MAX_MS = 5_000;
/** Retries may be a fifth of the calls, and one a second in any case. */
const BUDGET_SHARE = 0.2;
const BUDGET_PER_MS = 1 / 1_000;
const BUDGET_MAX = 20;

/** The pause after the `failures`th failure in a row: full jitter, after what the server asks for. */
export function pauseAfter(failures: number, retryAfter: number | undefined, luck: number = Math.random()): number {
  const ceiling = Math.min(PAUSE_MS * 2 ** Math.min(failures - 1, 10), PAUSE_MAX_MS);
  return (retryAfter ?? 0) + ceiling * luck;
}

/** Sleeps; rejects with the signal's reason as soon as that says so. */
export async function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  signal?.throwIfAborted();
  try {
    await wait(ms, undefined, signal === undefined ? {} : { signal });
  } catch (error) {
    signal?.throwIfAborted();
    throw error;
  }
}

/** What a client may spend on trying again. */
export class RetryBudget {
  #balance = BUDGET_MAX / 2;
  #at = performance.now();

  /** A call was made. */
  deposit(): void {
    this.#accrue(BUDGET_SHARE);
  }

  /** Whether one more retry is allowed. */
  withdraw(): boolean {
    this.#accrue(0);
    if (this.#balance < 1) return false;
    this.#balance -= 1;
    return true;
  }

  #accrue(share: number): void {
    const now = performance.now();
    this.#balance = Math.min(this.#balance + share + (now - this.#at) * BUDGET_PER_MS, BUDGET_MAX);
    this.#at = now;
  }
}
