// Makes src/gen from the .proto files; with `--output FOLDER` that folder instead, to compare.
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { delimiter, join } from "node:path";

const root = fileURLToPath(new URL("..", import.meta.url));
const programs = join(root, "node_modules", ".bin");
const buf = join(root, "..", "..", "scripts", "buf");
const { status, error } = spawnSync(buf, ["generate", ...process.argv.slice(2)], {
  cwd: root,
  env: { ...process.env, PATH: `${programs}${delimiter}${process.env.PATH ?? ""}` },
  stdio: "inherit",
});
if (error) throw error;
process.exit(status ?? 1);
