/** Where a worker tells about its connections. `console` is one. */
export interface Logger {
  /** What happens in good order. */
  info(message: string): void;
  /** What is not in order, and tried again. */
  warn(message: string): void;
}

/** Tells nobody. */
export const silent: Logger = { info: () => {}, warn: () => {} };
