// The same rate all the time: k6 run -e RATE=100 -e DURATION=30s steady.js
import { number, options as all, text } from "./lib/forebay.js";

export { handleSummary, setup, submit, teardown } from "./lib/forebay.js";

export const options = all({
  executor: "constant-arrival-rate",
  rate: number("RATE", 100),
  timeUnit: "1s",
  duration: text("DURATION", "30s"),
  preAllocatedVUs: number("VUS", 50),
  maxVUs: number("VUS_MAX", 500),
});
