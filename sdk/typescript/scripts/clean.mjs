// Removes the folders it is given, which are made by `npm run build` and `npm test`.
import { rmSync } from "node:fs";

for (const folder of process.argv.slice(2)) {
  rmSync(new URL(`../${folder}/`, import.meta.url), { recursive: true, force: true });
}
