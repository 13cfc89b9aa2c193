// A base rate, and bursts of another: k6 run -e RATE=50 -e BURST_RATE=500 -e BURSTS=3 burst.js
import { number, options as all } from "./lib/forebay.js";

export { handleSummary, setup, submit, teardown } from "./lib/forebay.js";

const base = number("RATE", 50);
const burst = number("BURST_RATE", 500);
const quiet = number("QUIET_SECONDS", 8);
const length = number("BURST_SECONDS", 2);

const stages = [];
for (let round = 0; round < number("BURSTS", 3); round += 1) {
  stages.push({ target: base, duration: `${quiet}s` });
  // A stage of no length is a step.
  stages.push({ target: burst, duration: "0s" });
  stages.push({ target: burst, duration: `${length}s` });
  stages.push({ target: base, duration: "0s" });
}

export const options = all({
  executor: "ramping-arrival-rate",
  startRate: base,
  timeUnit: "1s",
  stages,
  preAllocatedVUs: number("VUS", 100),
  maxVUs: number("VUS_MAX", 1000),
});
