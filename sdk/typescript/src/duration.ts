/** How long: milliseconds, or text such as `"250ms"`, `"30s"`, `"5m"`, `"2h"` or `"1d"`. */
export type Duration = number | `${number}${"ms" | "s" | "m" | "h" | "d"}`;

const UNITS: Readonly<Record<string, number>> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 };
const PATTERN = /^(\d+(?:\.\d+)?)(ms|s|m|h|d)$/;

/** In milliseconds. `name` says whose duration it is, where it is none. */
export function milliseconds(duration: Duration, name: string): number {
  const found = typeof duration === "string" ? PATTERN.exec(duration) : null;
  const unit = found?.[2] === undefined ? undefined : UNITS[found[2]];
  const value = typeof duration === "number" ? duration : Number(found?.[1]) * (unit ?? Number.NaN);
  if (!Number.isFinite(value) || value < 0) {
    throw new RangeError(`${name}: ${String(duration)} is no duration, which is milliseconds or text such as "30s"`);
  }
  return value;
}

/** What a message says of a duration. */
export interface DurationMessage {
  readonly seconds: bigint;
  readonly nanos: number;
}

/** A duration as a message. */
export function durationMessage(ms: number): DurationMessage {
  const seconds = Math.floor(ms / 1_000);
  const nanos = Math.round((ms - seconds * 1_000) * 1e6);
  return nanos < 1e9 ? { seconds: BigInt(seconds), nanos } : { seconds: BigInt(seconds + 1), nanos: 0 };
}

/** A message's duration in milliseconds. */
export function durationOf(message: DurationMessage): number {
  return Number(message.seconds) * 1_000 + message.nanos / 1e6;
}
