import { parseArgs } from 'node:util';
import { describe } from '../errors/describe.js';
import { checkCacheName } from '../model/cache-name.js';
import type { CommandOptions } from './option.js';
import { UsageError } from './usage-error.js';

/** The values of a command's options. Every method throws UsageError for a value that breaks the option's rule. */
export class Arguments {
  readonly #values: Readonly<Record<string, string | boolean | (string | boolean)[] | undefined>>;

  /** Parses the words behind the command. Throws UsageError for a word that is no option of the command. */
  constructor(argv: readonly string[], options: CommandOptions) {
    try {
      const { values } = parseArgs({
        args: [...argv],
        options: Object.fromEntries(
          Object.entries(options).map(([name, { value, multiple = false }]) => [
            name,
            { type: value === undefined ? ('boolean' as const) : ('string' as const), multiple },
          ]),
        ),
      });
      this.#values = values;
    } catch (error) {
      throw new UsageError((error as Error).message, { cause: error });
    }
  }

  flag(name: string): boolean {
    return this.#values[name] === true;
  }

  text(name: string): string | undefined {
    const value = this.#values[name];
    return typeof value === 'string' ? value : undefined;
  }

  /** The value of an option that the command can't do without. `meaning`: `the name of a cache`. */
  requiredText(name: string, meaning: string): string {
    const value = this.text(name);
    if (value !== undefined) return value;
    throw new UsageError(`--${name} must be ${meaning}, but is missing. Add --${name} NAME.`);
  }

  /** The cache that the command is about. */
  cache(): string {
    return cacheName(this.requiredText('cache', 'the name of a cache'));
  }

  /** The cache that limits the output of the command, if there is one. */
  cacheFilter(): string | undefined {
    const cache = this.text('cache');
    return cache === undefined ? undefined : cacheName(cache);
  }

  number(name: string, limits: NumberLimits): number | undefined {
    const text = this.text(name);
    return text === undefined ? undefined : integer(name, text, limits);
  }

  /** The values of a repeatable option. */
  texts(name: string): string[] {
    const values = this.#values[name];
    return Array.isArray(values) ? values.map(String) : [];
  }

  /** The values of a repeatable option. */
  numbers(name: string, limits: NumberLimits): number[] {
    return this.texts(name).map((text) => integer(name, text, limits));
  }
}

interface NumberLimits {
  readonly least: number;
  readonly most: number;
}

function cacheName(text: string): string {
  try {
    return checkCacheName(text);
  } catch (error) {
    throw new UsageError((error as Error).message, { cause: error });
  }
}

function integer(name: string, text: string, { least, most }: NumberLimits): number {
  const value = /^\d{1,15}$/.test(text) ? Number(text) : NaN;
  if (value >= least && value <= most) return value;
  throw new UsageError(
    `--${name} must be an integer from ${least} to ${most}, but got ${describe(text)}. Leave it out for the default.`,
  );
}
