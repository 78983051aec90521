/**
 * A generation's value while strict commits are under way: `<n>!<token>@<lapsesAtMs>,<token>@<lapsesAtMs>…`
 *
 * `n` counts the bumps so far. Each writer has a token of its own, 16 base64url characters, and the instant, by the
 * store's clock, after which it no longer counts: a writer that dies leaves nothing behind for ever. The key expires
 * with the latest of them, and the generation is then minted anew.
 *
 *     3.Zr1…  --quarantine A-->  3!A@…  --quarantine B-->  3!A@…,B@…  --bump-->  4!A@…,B@…  --lift A-->  4!B@…
 *     4!B@…  --lift B-->  5.q8c…          4!B@…  --lapse-->  (missing)  --mint-->  0.hT0…
 *
 * **Invariant.** No generation from before a quarantine is ever seen again: the tokens replaced it, and whatever comes
 * after them has a fresh nonce. So readers that loaded before the commit, or during it, fill nothing that is read after.
 *
 * It holds without trust between writers: one's lift leaves the other's token, a bump leaves both. What an eviction, a
 * flush or a lapse takes away is noticed by the lift, which then bumps what it finds.
 */

/** The writers of one generation that are at work, by token, and until when each counts, in ms. */
export interface QuarantinedGeneration {
  readonly bumps: number;
  readonly lapsesAtMs: ReadonlyMap<string, number>;
}

const TOKEN = '[A-Za-z0-9_-]{16}@[0-9]+';
const QUARANTINE = new RegExp(`^[0-9]{1,15}!${TOKEN}(?:,${TOKEN})*$`);

/** Whether these bytes are a generation's value under quarantine. */
export function isQuarantined(value: string): boolean {
  return QUARANTINE.test(value);
}

/** The quarantine that these bytes are, lapsed tokens included; `undefined` for any others. */
export function parseQuarantine(value: string): QuarantinedGeneration | undefined {
  if (!isQuarantined(value)) return undefined;
  const [bumps, tokens] = value.split('!') as [string, string];
  const lapsesAtMs = new Map(
    tokens.split(',').map((token) => {
      const [name, instant] = token.split('@') as [string, string];
      return [name, Number(instant)];
    }),
  );
  return { bumps: Number(bumps), lapsesAtMs };
}

/** The value of a generation under quarantine. */
export function quarantined({ bumps, lapsesAtMs }: QuarantinedGeneration): string {
  return `${bumps}!${[...lapsesAtMs].map(([token, instant]) => `${token}@${instant}`).join()}`;
}
