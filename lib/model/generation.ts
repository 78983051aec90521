/**
 * A generation's value in the store, in one of two forms:
 *
 *     <n>.<nonce>                                     a standing generation
 *     <n>!<token>@<lapsesAtMs>,<token>@<lapsesAtMs>…  a generation under quarantine, around strict commits
 *
 * `n` counts the bumps since the generation was minted, for people: no decision depends on it. The nonce, 96 random
 * bits that the client draws for each attempt, makes every value a new one. **Invariant.** No two values that a scope's
 * generation ever had are equal, whatever evictions, flushes, restores or failovers lie between: a counter that was
 * lost and starts again at 0 has another nonce. Values are compared for equality only.
 *
 * Under quarantine each strict writer has a token of its own, 16 base64url characters, and the instant, by the store's
 * clock, at which the token lapses, so that no quarantine outlives a dead writer for long. The key expires with the
 * latest token, and the next reader mints the generation anew.
 *
 *     3.Zr1…  --quarantine A-->  3!A@…  --quarantine B-->  3!A@…,B@…  --bump-->  4!A@…,B@…  --lift A-->  4!B@…
 *     4!B@…  --lift B-->  5.q8c…          4!B@…  --lapse-->  (missing)  --mint-->  0.hT0…
 *
 * **Invariant.** No generation from before a quarantine is ever seen again: the tokens replace it, and the value that
 * follows them has a fresh nonce. So no reader after the commit sees an entry that was loaded before or during it.
 * Writers are independent of each other: a lift leaves the other writers' tokens, and a bump leaves all of them.
 *
 * A value of any other form is foreign. A later release may have written it: readers bypass the cache, and a bump
 * deletes it (docs/protocol.md, rule 7a).
 */
import { randomBytes } from 'node:crypto';

declare const brand: unique symbol;

export type Generation = string & { readonly [brand]: 'Generation' };

/** State of a generation, as a read of the store shows it. */
export type GenerationState = Generation | 'missing' | 'quarantined' | 'foreign';

/** The parsed value of a standing generation. */
export interface StandingGeneration {
  readonly generation: Generation;
  readonly bumps: number;
  readonly lapsesAtMs?: undefined;
}

/** The parsed value of a generation under quarantine: for each writer's token the instant, by the store's clock in ms, at which it lapses. */
export interface QuarantinedGeneration {
  readonly generation?: undefined;
  readonly bumps: number;
  readonly lapsesAtMs: ReadonlyMap<string, number>;
}

/** 96 bits as base64url. */
const NONCE_BYTES = 12;

const STANDING = /^[0-9]{1,15}\.[A-Za-z0-9_-]{16}$/;
const TOKEN = '[A-Za-z0-9_-]{16}@[0-9]+';
const QUARANTINED = new RegExp(`^[0-9]{1,15}!${TOKEN}(?:,${TOKEN})*$`);

/** The form of a standing generation, for messages. */
export const GENERATION_RULE = 'digits, a dot and 16 base64url characters';

/** One draw of random bytes serves this many nonces: a draw costs 3 µs at any size up to some kB. */
const POOL_NONCES = 256;
let pool = Buffer.alloc(0);
let drawn = 0;

/**
 * Returns a nonce for one attempt of one command. A retry takes another nonce: none is sent again once the server may
 * have executed its command.
 */
export function nonce(): string {
  if (drawn === pool.length) {
    pool = randomBytes(NONCE_BYTES * POOL_NONCES);
    drawn = 0;
  }
  return pool.toString('base64url', drawn, (drawn += NONCE_BYTES));
}

/** Returns the value of a generation after `bumps` bumps, the last of them under the nonce `attempt`. */
export function formatGeneration(bumps: number, attempt: string): Generation {
  return `${bumps}.${attempt}` as Generation;
}

/** Returns the value of a generation under quarantine. */
export function formatQuarantine({ bumps, lapsesAtMs }: Omit<QuarantinedGeneration, 'generation'>): string {
  return `${bumps}!${[...lapsesAtMs].map(([token, instant]) => `${token}@${instant}`).join()}`;
}

/** Parses a generation's value, lapsed tokens included; `undefined` for a foreign value. The only parser. */
export function parseGeneration(value: string): StandingGeneration | QuarantinedGeneration | undefined {
  if (STANDING.test(value)) return { generation: value as Generation, bumps: Number.parseInt(value, 10) };
  if (!QUARANTINED.test(value)) return undefined;
  const [bumps, tokens] = value.split('!') as [string, string];
  const lapsesAtMs = new Map(
    tokens.split(',').map((token) => {
      const [name, instant] = token.split('@') as [string, string];
      return [name, Number(instant)];
    }),
  );
  return { bumps: Number(bumps), lapsesAtMs };
}

/** Returns the state of a generation with this value. */
export function generationState(value: string): Exclude<GenerationState, 'missing'> {
  const parsed = parseGeneration(value);
  if (parsed === undefined) return 'foreign';
  return parsed.generation ?? 'quarantined';
}
