// What the four scripts share: how a task is submitted, what is checked of every answer, and the proof at the end that
// every accepted task has come to an end.
//
// Settings are environment variables (`k6 run -e RATE=500 steady.js`); README.md has the table.

import { check, fail, sleep } from "k6";
import exec from "k6/execution";
import http from "k6/http";
import { Counter, Rate, Trend } from "k6/metrics";

/** A setting that is a number. */
export function number(name, otherwise) {
  const text = __ENV[name];
  const value = text === undefined || text === "" ? otherwise : Number(text);
  if (Number.isNaN(value)) throw new Error(`${name}=${text} is not a number`);
  return value;
}

/** A setting that is text. */
export function text(name, otherwise) {
  return __ENV[name] || otherwise;
}

const url = text("FOREBAY_URL", "http://127.0.0.1:8080").replace(/\/+$/, "");
const kind = text("KIND", "echo");
const queue = text("QUEUE", "default");
const filler = "x".repeat(Math.max(0, number("PAYLOAD_BYTES", 256) - 40));
const drainSeconds = number("DRAIN_SECONDS", 120);

/** Submissions answered 202 with an id. */
export const accepted = new Counter("forebay_accepted");
/** Submissions answered 429 or 503: not now. */
export const refused = new Counter("forebay_refused");
/** Whether a submission got an answer that is an error, or none. */
export const failed = new Rate("forebay_failed");
/** Accepted tasks that were succeeded, failed, cancelled or expired at the end. */
export const finished = new Counter("forebay_finished");
/** Accepted tasks less those that came to an end: counted up with each answer, and down at the end. */
export const missing = new Counter("forebay_missing");
/** From the beginning of the last wait to the end of the last task, in milliseconds. */
export const drained = new Trend("forebay_drain", true);

/** The options of a script, with what all have in common. The scenario must be called `load`. */
export function options(scenario) {
  return {
    scenarios: { load: { exec: "submit", gracefulStop: "30s", ...scenario } },
    thresholds: {
      checks: ["rate==1"],
      forebay_failed: ["rate==0"],
      forebay_missing: ["count<=0"],
      // Iterations that k6 could not begin in time: the load was not what was asked for.
      dropped_iterations: ["count==0"],
      "http_req_duration{name:submit}": [`p(99)<${number("P99_MS", 1000)}`],
    },
    setupTimeout: "30s",
    teardownTimeout: `${drainSeconds + 60}s`,
    summaryTrendStats: ["med", "p(90)", "p(99)", "max"],
    noConnectionReuse: false,
    discardResponseBodies: false,
  };
}

function read(path, name) {
  return http.get(`${url}${path}`, { tags: { name }, timeout: "10s" });
}

/** Fails at once where there is no server, and gives the run a tag of its own. */
export function setup() {
  const answer = read("/openapi.json", "setup");
  if (answer.status !== 200) fail(`there is no Forebay at ${url}: ${answer.error || answer.status}`);
  const tag = `k6-${Date.now().toString(36)}-${Math.floor(Math.random() * 1e9).toString(36)}`;
  return { tag, began: new Date(Date.now() - 60_000).toISOString() };
}

/** Submits one task. 429 and 503 are refusals, not errors. */
export function submit(run) {
  const body = JSON.stringify({
    kind,
    queue,
    tags: [run.tag],
    payload: { number: exec.scenario.iterationInTest, filler },
  });
  const answer = http.post(`${url}/v1/tasks`, body, {
    headers: { "Content-Type": "application/json" },
    tags: { name: "submit" },
    responseCallback: http.expectedStatuses(202, 429, 503),
    timeout: "30s",
  });
  if (answer.status === 429 || answer.status === 503) {
    refused.add(1);
    failed.add(false);
    return;
  }
  const good = check(answer, {
    "it is accepted": () => answer.status === 202,
    "it has an id": () => answer.status === 202 && /^[0-9a-f-]{36}$/.test(answer.json("id")),
  });
  failed.add(!good);
  if (good) {
    accepted.add(1);
    missing.add(1);
  }
}

const final = ["succeeded", "failed", "cancelled", "expired"];

/** Counts this run's tasks by state, page by page. */
function count(run) {
  const counts = { finished: 0, open: 0 };
  let token = "";
  do {
    const query = `tag=${run.tag}&queue=${queue}&created_after=${run.began}&page_size=200${token}`;
    const answer = read(`/v1/tasks?${query}`, "list");
    if (answer.status !== 200) return null;
    const page = answer.json();
    for (const task of page.tasks) counts[final.includes(task.state) ? "finished" : "open"] += 1;
    token = page.next_page_token ? `&page_token=${page.next_page_token}` : "";
  } while (token);
  return counts;
}

/** Waits until the queue looks empty, which is cheap to ask. */
function waitForQueue(end) {
  while (Date.now() < end) {
    const answer = read(`/v1/queues/${queue}`, "depth");
    if (answer.status === 200) {
      const { ready, running, scheduled } = answer.json();
      if (ready + running + scheduled === 0) return;
    }
    sleep(0.5);
  }
}

/**
 * Waits until every task of this run is final, and counts them. k6 does not show its counters to its scripts, but it
 * compares them with thresholds: what is left of `forebay_missing` must not be more than zero.
 */
export function teardown(run) {
  const began = Date.now();
  const end = began + drainSeconds * 1000;
  waitForQueue(end);
  let counts = null;
  do {
    counts = count(run);
    if (counts && counts.open === 0) break;
    sleep(0.5);
  } while (Date.now() < end);
  drained.add(Date.now() - began);
  finished.add(counts ? counts.finished : 0);
  missing.add(counts ? -counts.finished : 0);
  check(counts, { "no task is left unfinished": () => counts !== null && counts.open === 0 });
}

function total(data, name) {
  const metric = data.metrics[name];
  return metric ? metric.values.count : 0;
}

/** Says what came of it. k6's own summary is written where K6_SUMMARY names a file. */
export function handleSummary(data) {
  const sums = {
    accepted: total(data, "forebay_accepted"),
    finished: total(data, "forebay_finished"),
    refused: total(data, "forebay_refused"),
    dropped: total(data, "dropped_iterations"),
  };
  const duration = data.metrics["http_req_duration{name:submit}"];
  const at = (name) => (duration ? `${duration.values[name].toFixed(2)} ms` : "?");
  const broken = [];
  for (const [name, metric] of Object.entries(data.metrics)) {
    for (const [rule, outcome] of Object.entries(metric.thresholds || {})) {
      if (!outcome.ok) broken.push(`${name} ${rule}`);
    }
  }
  // A submission that failed halfway, or was refused, may have been accepted all the same: more is no loss.
  const whole = sums.accepted > 0 && sums.finished >= sums.accepted;
  const verdict = whole ? "every accepted task came to an end" : sums.accepted > 0 ? "ACCEPTED TASKS ARE MISSING" : "nothing was accepted";
  const lines = [
    `accepted ${sums.accepted}, finished ${sums.finished}: ${verdict}`,
    `refused ${sums.refused}, not begun in time ${sums.dropped}`,
    `submission p50 ${at("med")}, p99 ${at("p(99)")}, max ${at("max")}`,
    ...broken.map((rule) => `threshold crossed: ${rule}`),
  ];
  const files = { stdout: `\n${lines.join("\n")}\n` };
  const file = text("K6_SUMMARY", "");
  if (file) files[file] = JSON.stringify({ ...sums, whole, broken, metrics: data.metrics }, null, 2);
  return files;
}
