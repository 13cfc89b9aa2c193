// What a user gives, checked as far as no server need be asked: what JavaScript lets through would be sent as something else.
// What may be left out may be null as well.

const INT_MAX = 2 ** 31 - 1;

/** A text that may be left out, which is sent as an empty one; so one that is given must not be empty. */
export function text(value: string | undefined, name: string): string {
  if (value == null) return "";
  if (typeof value !== "string") throw new TypeError(`${name} must be a string: ${String(value)}`);
  if (value === "") throw new RangeError(`${name} must not be empty; undefined is as if it were not given`);
  return value;
}

/** Texts that may be left out. One text is many, too, and is refused. */
export function texts(values: Iterable<string> | undefined, name: string): string[] {
  return several(values, name).map((value) => {
    if (typeof value !== "string") throw new TypeError(`${name} must be an array of strings: ${String(value)}`);
    return value;
  });
}

/** Values that may be left out, of an array or a set, say. */
export function several<T>(values: Iterable<T> | undefined, name: string): readonly T[] {
  if (values == null) return [];
  if (typeof values !== "object" || !(Symbol.iterator in values)) throw new TypeError(`${name} must be an array`);
  return [...values];
}

/** A whole number as a member of a message, where there is one. */
export function whole<Name extends string>(name: Name, value: number | undefined): Partial<Record<Name, number>> {
  if (value == null) return {};
  if (!Number.isInteger(value) || value < 0 || value > INT_MAX) {
    throw new RangeError(`${name}: ${String(value)} is no whole number from 0 to ${INT_MAX}`);
  }
  return { [name]: value } as Partial<Record<Name, number>>;
}

/** What must be an object. */
export function object<T extends object>(value: T, name: string): T {
  if (typeof value !== "object" || value === null) throw new TypeError(`${name} must be an object: ${String(value)}`);
  return value;
}
