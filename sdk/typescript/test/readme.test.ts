// The README's examples: all of them are right, and those that say what they print print that.
import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

import ts from "typescript";

import { Server } from "./server.js";

const ROOT = fileURLToPath(new URL("..", import.meta.url));
const README = readFileSync(join(ROOT, "README.md"), "utf8");
/** A file by the name that its first line has, and what it prints, where that follows. */
const EXAMPLES = [...README.matchAll(/^```ts\n(\/\/ (\S+)\.ts\n[\s\S]*?)^```$(?:\n\n```text\n([\s\S]*?)^```$)?/gm)].map(
  ([, code = "", name = "", prints]) => ({ code, name, prints }),
);

/** Writes each example into a file, and compiles them. */
function compile(folder: string): void {
  const files = EXAMPLES.map(({ code, name }) => {
    writeFileSync(join(folder, `${name}.ts`), code);
    return join(folder, `${name}.ts`);
  });
  const { config } = ts.readConfigFile(join(ROOT, "tsconfig.json"), (path) => ts.sys.readFile(path)) as {
    config: { compilerOptions: { lib: unknown } };
  };
  // As strict as this package is, and with no more of libraries and types than a user has who says nothing of them.
  const { lib: _, ...strict } = config.compilerOptions;
  const wanted = { ...strict, types: [], rootDir: folder, outDir: folder };
  const { options } = ts.convertCompilerOptionsFromJson(wanted, ROOT);
  const program = ts.createProgram(files, options);
  const { diagnostics } = program.emit();
  const mistakes = [...ts.getPreEmitDiagnostics(program), ...diagnostics];
  const host = { getCanonicalFileName: (name: string) => name, getCurrentDirectory: () => folder, getNewLine: () => "\n" };
  assert.equal(ts.formatDiagnostics(mistakes, host), "");
}

test("the examples are right, and do what they say", async (t) => {
  // Within the package, so that it finds itself by its name.
  const folder = mkdtempSync(join(ROOT, "build", "readme-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const named = EXAMPLES.map(({ name, prints }) => (prints === undefined ? name : `${name} prints`));
  assert.deepEqual(named, ["worker", "submit prints", "download", "more prints", "terms prints"]);
  assert.equal(EXAMPLES.length, README.split("\n```ts\n").length - 1, "one has no name");
  compile(folder);
  const server = await Server.start();
  t.after(() => server.remove());
  const env = { ...process.env, FOREBAY_GRPC_URL: server.url };
  const worker = spawn(process.execPath, [join(folder, "worker.js")], { env, stdio: ["ignore", "ignore", "inherit"] });
  t.after(() => worker.kill("SIGKILL"));
  for (const { name, prints } of EXAMPLES.filter((example) => example.prints !== undefined)) {
    const { stdout } = await promisify(execFile)(process.execPath, [join(folder, `${name}.js`)], { env });
    assert.equal(stdout, prints, name);
  }
  const exit = once(worker, "exit");
  worker.kill("SIGTERM");
  assert.deepEqual(await exit, [0, null]);
});
