import { parseArgs } from 'node:util';
import { describe } from '../errors/describe.js';
import { checkCacheName } from '../model/cache-name.js';

/** The command line breaks a rule: told with the usage, and exit code 64. */
export class UsageError extends Error {}

export interface Option {
  /** What stands for its value in the help; a flag has none. */
  readonly value?: string;
  readonly multiple?: boolean;
  readonly help: string;
}

export type Options = Readonly<Record<string, Option>>;

export const CACHE: Option = { value: 'NAME', help: 'the `name` of the GenerationalCache' };
export const JSON_OUTPUT: Option = { help: 'prints JSON, for programs' };

/** What was typed behind a command's words, by option. */
export class Arguments {
  readonly #values: Readonly<Record<string, string | boolean | (string | boolean)[] | undefined>>;

  /** Throws UsageError for what is not among the options. */
  constructor(argv: readonly string[], options: Options) {
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

  /** The name of a cache, which this command needs. */
  cache(): string {
    const cache = this.anyCache();
    if (cache === undefined) throw new UsageError('This command is about one cache. None is named. Add --cache NAME.');
    return cache;
  }

  /** The name of a cache, if one is named. */
  anyCache(): string | undefined {
    const cache = this.text('cache');
    if (cache === undefined) return undefined;
    try {
      return checkCacheName(cache);
    } catch (error) {
      throw new UsageError((error as Error).message, { cause: error });
    }
  }

  number(name: string, limits: Limits): number | undefined {
    const text = this.text(name);
    return text === undefined ? undefined : wholeNumber(name, text, limits);
  }

  /** Of an option that may be given several times. */
  texts(name: string): string[] {
    const values = this.#values[name];
    return Array.isArray(values) ? values.map(String) : [];
  }

  /** Of an option that may be given several times. */
  numbers(name: string, limits: Limits): number[] {
    return this.texts(name).map((text) => wholeNumber(name, text, limits));
  }
}

interface Limits {
  readonly least: number;
  readonly most: number;
}

function wholeNumber(name: string, text: string, { least, most }: Limits): number {
  const value = /^\d{1,15}$/.test(text) ? Number(text) : NaN;
  if (value >= least && value <= most) return value;
  throw new UsageError(
    `--${name} is a whole number from ${least} to ${most}. Got ${describe(text)}. Leave it out for the default.`,
  );
}
