// The same rate for long: k6 run -e RATE=100 -e DURATION=30m soak.js
// k6 does not see the server's memory or tables; `forebay-loadtest run soak --database-url …` does.
import { number, options as all, text } from "./lib/forebay.js";

export { handleSummary, setup, submit, teardown } from "./lib/forebay.js";

export const options = all({
  executor: "constant-arrival-rate",
  rate: number("RATE", 100),
  timeUnit: "1s",
  duration: text("DURATION", "30m"),
  preAllocatedVUs: number("VUS", 50),
  maxVUs: number("VUS_MAX", 500),
});
