// What is published: its files, its types, and what it is generated from.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

import * as forebay from "@forebay/client";

const ROOT = fileURLToPath(new URL("..", import.meta.url));

const read = (...path: string[]): string => readFileSync(join(ROOT, ...path), "utf8");

function filesUnder(folder: string): string[] {
  const entries = readdirSync(folder, { recursive: true, withFileTypes: true });
  return entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath ?? entry.path, entry.name));
}

test("the version is the package's", () => {
  const { version } = JSON.parse(read("package.json")) as { version: string };
  assert.equal(forebay.VERSION, version);
});

test("the values that are exported are these", () => {
  assert.deepEqual(Object.keys(forebay).sort(), [
    "ApiError",
    "Client",
    "ConflictError",
    "ForebayError",
    "IdempotencyKeyReusedError",
    "InvalidRequestError",
    "NotFoundError",
    "OverloadedError",
    "Permanent",
    "RequestTimeoutError",
    "RetryAfter",
    "Snooze",
    "TaskStopped",
    "UnavailableError",
    "VERSION",
    "WaitTimeoutError",
    "Worker",
    "isFinal",
  ]);
});

test("no type is any, and none of the public ones names what is generated or the transport", () => {
  const seen = new Set<string>();
  const visit = (name: string): void => {
    if (seen.has(name)) return;
    seen.add(name);
    const declared = read("dist", `${name}.d.ts`).replace(/\/\*[\s\S]*?\*\//g, "");
    assert.doesNotMatch(declared, /\bany\b/, name);
    for (const [, from] of declared.matchAll(/from "([^"]+)"/g)) {
      const own = /^\.\/([a-z-]+)\.js$/.exec(from ?? "");
      assert.ok(own?.[1] !== undefined, `${name} names ${from}`);
      visit(own[1]);
    }
  };
  visit("index");
  assert.ok(seen.has("client") && seen.has("worker"));
});

test("every export has a comment that says what it promises", () => {
  for (const file of readdirSync(join(ROOT, "src")).filter((name) => name.endsWith(".ts") && name !== "index.ts")) {
    const lines = read("src", file).split("\n");
    for (const [index, line] of lines.entries()) {
      if (!/^export (async |abstract )?(class|function|interface|type|const)/.test(line)) continue;
      assert.match(lines[index - 1] ?? "", /\*\/$/, `${file}:${index + 1} has none`);
    }
  }
});

test("what is published is what is built, and no more", () => {
  const packed = execFileSync("npm", ["pack", "--dry-run", "--json", "--ignore-scripts", "--loglevel=silent"], {
    cwd: ROOT,
    encoding: "utf8",
  });
  const [{ files }] = JSON.parse(packed) as [{ files: { path: string }[] }];
  const paths = files.map(({ path }) => path);
  for (const wanted of ["dist/index.js", "dist/index.d.ts", "README.md", "LICENSE", "package.json"]) {
    assert.ok(paths.includes(wanted), wanted);
  }
  for (const path of paths) assert.match(path, /^(dist\/.*\.(js|d\.ts)|README\.md|LICENSE|package\.json)$/);
});

test("the lock names no host", () => {
  assert.doesNotMatch(read("package-lock.json"), /resolved|https?:\/\/(?!opencollective|github)/);
});

test("what is generated is current", (t) => {
  const folder = mkdtempSync(join(tmpdir(), "forebay-generated-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  execFileSync(process.execPath, [join(ROOT, "scripts", "generate.mjs"), "--output", folder], { stdio: "inherit" });
  const made = join(folder, "src", "gen");
  const kept = join(ROOT, "src", "gen");
  const names = (root: string): string[] => filesUnder(root).map((file) => file.slice(root.length));
  assert.deepEqual(names(made).sort(), names(kept).sort(), "run: npm run generate");
  for (const name of names(kept)) {
    assert.equal(readFileSync(join(made, name), "utf8"), readFileSync(join(kept, name), "utf8"), "run: npm run generate");
  }
});
