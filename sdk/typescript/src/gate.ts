// Lets so many handlers run at once, whatever is asked for: a server counts what runs on a stream, but what a lost stream
// left behind, or what a draining one still runs, only this process knows.

/** How long to wait for a place: a task's timeout runs meanwhile, and another worker may have a place. */
export const PLACE_WITHIN_MS = 5_000;

/** Gives a place back. */
export type Leave = () => void;

interface Waiting {
  readonly kind: string;
  readonly kindMax: number;
  readonly enter: (leave: Leave | undefined) => void;
}

/** So many places, and no more for one kind than that allows. First come, first served, but for kinds at their limit. */
export class Gate {
  readonly #places: number;
  readonly #byKind = new Map<string, number>();
  readonly #waiting = new Set<Waiting>();
  #inside = 0;
  #idle: (() => void)[] = [];

  constructor(places: number) {
    this.#places = places;
  }

  /** How many are inside. */
  get inside(): number {
    return this.#inside;
  }

  /** Waits for a place, but not for ever: for none once `signal` says so, or the time is over. */
  enter(
    kind: string,
    kindMax: number,
    signal: AbortSignal,
    withinMs: number = PLACE_WITHIN_MS,
  ): Promise<Leave | undefined> {
    if (signal.aborted) return Promise.resolve(undefined);
    if (this.#hasRoom(kind, kindMax)) return Promise.resolve(this.#admit(kind));
    return new Promise((resolve) => {
      const giveUp = (): void => waiting.enter(undefined);
      const timer = setTimeout(giveUp, withinMs);
      const waiting: Waiting = {
        kind,
        kindMax,
        enter: (leave) => {
          this.#waiting.delete(waiting);
          clearTimeout(timer);
          signal.removeEventListener("abort", giveUp);
          resolve(leave);
        },
      };
      this.#waiting.add(waiting);
      signal.addEventListener("abort", giveUp, { once: true });
    });
  }

  /** Resolves when nobody is inside. */
  empty(): Promise<void> {
    if (this.#inside === 0) return Promise.resolve();
    return new Promise((resolve) => this.#idle.push(resolve));
  }

  #hasRoom(kind: string, kindMax: number): boolean {
    return this.#inside < this.#places && (this.#byKind.get(kind) ?? 0) < kindMax;
  }

  #admit(kind: string): Leave {
    this.#inside += 1;
    this.#byKind.set(kind, (this.#byKind.get(kind) ?? 0) + 1);
    let left = false;
    return () => {
      if (left) return;
      left = true;
      this.#leave(kind);
    };
  }

  #leave(kind: string): void {
    this.#inside -= 1;
    const others = (this.#byKind.get(kind) ?? 1) - 1;
    if (others === 0) this.#byKind.delete(kind);
    else this.#byKind.set(kind, others);
    for (const waiting of this.#waiting) {
      if (this.#hasRoom(waiting.kind, waiting.kindMax)) waiting.enter(this.#admit(waiting.kind));
    }
    if (this.#inside === 0) for (const tell of this.#idle.splice(0)) tell();
  }
}
