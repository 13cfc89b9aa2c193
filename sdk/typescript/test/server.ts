// The real thing: `forebay dev` on free ports, with its data in a temporary folder; or, where FOREBAY_TEST_GRPC_URL says so,
// a server that is there already, and that nobody may end.
import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import { until } from "./waiting.js";

const BINARY = process.env["FOREBAY_BIN"] ?? fileURLToPath(new URL("../../../target/debug/forebay", import.meta.url));
const ELSEWHERE = process.env["FOREBAY_TEST_GRPC_URL"];
const READY_WITHIN_MS = 60_000;

/** Why a test is left out that ends its server, where it may not. */
export const endsServer = { skip: ELSEWHERE === undefined ? false : "the server is not the test's own" } as const;

/** A server that a test may end and start again. */
export class Server {
  readonly #folder = ELSEWHERE === undefined ? mkdtempSync(join(tmpdir(), "forebay-typescript-")) : undefined;
  #process: ChildProcess | undefined;
  #port = 0;

  /** Starts one. */
  static async start(): Promise<Server> {
    const server = new Server();
    await server.begin();
    return server;
  }

  /** Its gRPC API. */
  get url(): string {
    return ELSEWHERE ?? `http://127.0.0.1:${this.#port}`;
  }

  /** Starts it, where it was before if it was before. */
  async begin(): Promise<void> {
    if (this.#folder === undefined) return;
    const local = (port: number): string => `127.0.0.1:${port}`;
    const ports = ["--http-addr", local(0), "--grpc-addr", local(this.#port), "--admin-addr", local(0)];
    const child = spawn(BINARY, ["dev", "--data", join(this.#folder, "data"), ...ports], {
      env: { ...process.env, FOREBAY_LOG: "error" },
      stdio: ["ignore", "pipe", "inherit"],
    });
    this.#process = child;
    let welcome = "";
    child.stdout.setEncoding("utf8").on("data", (text: string) => (welcome += text));
    const failed = once(child, "error").then(([error]) => {
      throw error as Error;
    });
    const ready = until(
      `${BINARY} is ready`,
      () => {
        if (child.exitCode !== null) throw new Error(`${BINARY} ended with ${child.exitCode}: ${welcome}`);
        return /gRPC +127\.0\.0\.1:(\d+)/.exec(welcome)?.[1];
      },
      READY_WITHIN_MS,
    );
    this.#port = Number(await Promise.race([ready, failed]));
  }

  /** Ends it in good order, or with SIGKILL. */
  async end(signal: NodeJS.Signals = "SIGTERM"): Promise<void> {
    const child = this.#process;
    this.#process = undefined;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const exit = once(child, "exit");
    child.kill(signal);
    await exit;
  }

  /** Ends it, and removes its data. */
  async remove(): Promise<void> {
    await this.end();
    if (this.#folder !== undefined) rmSync(this.#folder, { recursive: true, force: true });
  }
}
