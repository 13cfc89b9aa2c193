// The README's examples: all of them are right, and the first ones run.
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
/** Writes each example into a file, by the name that its first line has, and compiles them. */
function compile(folder: string): number {
  const readme = readFileSync(join(ROOT, "README.md"), "utf8");
  const examples = [...readme.matchAll(/^```ts\n([\s\S]*?)^```$/gm)].map(([, code = ""]) => code);
  const files = examples.map((code, index) => {
    const name = /^\/\/ (\S+\.ts)$/m.exec(code.split("\n", 1)[0] ?? "")?.[1] ?? `example-${index}.ts`;
    writeFileSync(join(folder, name), code);
    return join(folder, name);
  });
  const { config } = ts.readConfigFile(join(ROOT, "tsconfig.json"), (path) => ts.sys.readFile(path)) as {
    config: { compilerOptions: object };
  };
  const wanted = { ...config.compilerOptions, rootDir: folder, outDir: folder };
  const { options } = ts.convertCompilerOptionsFromJson(wanted, ROOT);
  const program = ts.createProgram(files, options);
  const { diagnostics } = program.emit();
  const mistakes = [...ts.getPreEmitDiagnostics(program), ...diagnostics];
  const host = { getCanonicalFileName: (name: string) => name, getCurrentDirectory: () => folder, getNewLine: () => "\n" };
  assert.equal(ts.formatDiagnostics(mistakes, host), "");
  return files.length;
}

test("the examples are right, and the first two do what they say", async (t) => {
  // Within the package, so that it finds itself by its name.
  const folder = mkdtempSync(join(ROOT, "build", "readme-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  assert.equal(compile(folder), 4);
  const server = await Server.start();
  t.after(() => server.remove());
  const env = { ...process.env, FOREBAY_GRPC_URL: server.url };
  const worker = spawn(process.execPath, [join(folder, "worker.js")], { env, stdio: ["ignore", "ignore", "inherit"] });
  t.after(() => worker.kill("SIGKILL"));
  const { stdout } = await promisify(execFile)(process.execPath, [join(folder, "submit.js")], { env });
  assert.equal(stdout, "succeeded 7\n");
  const exit = once(worker, "exit");
  worker.kill("SIGTERM");
  assert.deepEqual(await exit, [0, null]);
});
