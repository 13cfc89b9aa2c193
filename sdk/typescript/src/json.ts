/** What JSON can say. */
export type JsonValue =
  | null
  | boolean
  | number
  | string
  | readonly JsonValue[]
  | { readonly [name: string]: JsonValue };

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** As JSON text; nothing for `undefined`. Throws a `TypeError` for what JSON cannot say. */
export function encodeJson(value: unknown): Uint8Array {
  if (value === undefined) return new Uint8Array();
  const text: string | undefined = JSON.stringify(value);
  if (text === undefined) throw new TypeError(`a ${typeof value} cannot be said in JSON`);
  return encoder.encode(text);
}

/** The value of JSON text; `null` for none. */
export function decodeJson(text: Uint8Array): JsonValue {
  return text.length === 0 ? null : (JSON.parse(decoder.decode(text)) as JsonValue);
}
