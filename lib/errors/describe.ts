import { inspect } from 'node:util';

/** Shows a value in an error message: on one line, with its type visible, at most 120 characters. */
export function describe(value: unknown): string {
  const shown =
    typeof value === 'function'
      ? 'a function'
      : inspect(value, { depth: 2, breakLength: Infinity, maxStringLength: 80, maxArrayLength: 5 });
  return shown.length <= 120 ? shown : `${shown.slice(0, 119)}…`;
}
