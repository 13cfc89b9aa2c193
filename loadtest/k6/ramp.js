// From one rate evenly to another: k6 run -e FROM=10 -e TO=1000 -e DURATION=60s ramp.js
import { number, options as all, text } from "./lib/forebay.js";

export { handleSummary, setup, submit, teardown } from "./lib/forebay.js";

export const options = all({
  executor: "ramping-arrival-rate",
  startRate: number("FROM", 10),
  timeUnit: "1s",
  stages: [{ target: number("TO", 500), duration: text("DURATION", "60s") }],
  preAllocatedVUs: number("VUS", 100),
  maxVUs: number("VUS_MAX", 1000),
});
