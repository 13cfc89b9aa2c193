// Cuts texts to what fits, and puts errors into words.
import { inspect } from "node:util";

/** The beginning of a text, in as many bytes of UTF-8 as are allowed. */
export function headOf(text: string, bytesMax: number): string {
  const bytes = Buffer.from(text);
  if (bytes.length <= bytesMax) return text;
  let end = bytesMax;
  while (end > 0 && isWithin(bytes[end])) end -= 1;
  return bytes.toString("utf8", 0, end);
}

/** The end of a text, in as many bytes of UTF-8 as are allowed. */
export function tailOf(text: string, bytesMax: number): string {
  const bytes = Buffer.from(text);
  if (bytes.length <= bytesMax) return text;
  let start = bytes.length - bytesMax;
  while (start < bytes.length && isWithin(bytes[start])) start += 1;
  return bytes.toString("utf8", start);
}

/** Whether a byte goes on with a character. */
function isWithin(byte: number | undefined): boolean {
  return byte !== undefined && (byte & 0xc0) === 0x80;
}

/** An error in words: what it is called, what it says, and what caused it. */
export function describe(error: unknown): string {
  const parts: string[] = [];
  for (let each = error; each !== undefined && parts.length < CAUSES_MAX; each = causeOf(each)) {
    parts.push(inWords(each));
  }
  return parts.join(": ");
}

const CAUSES_MAX = 5;

function causeOf(error: unknown): unknown {
  return error instanceof Error ? error.cause : undefined;
}

function inWords(error: unknown): string {
  if (!(error instanceof Error)) return typeof error === "string" ? error : inspect(error);
  const isNamed = error.name !== "Error" && error.name !== "";
  if (error.message === "") return error.name;
  return isNamed ? `${error.name}: ${error.message}` : error.message;
}
