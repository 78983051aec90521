/** Another cache, warm: no local tier, one value for each index, in what comes nearest to three levels. */
export interface Rival {
  readonly name: string;
  /** With its version, and how its levels are said. */
  readonly subject: string;
  /** A hit; throws when it is none. */
  get(index: number): Promise<unknown>;
  close(): Promise<unknown>;
}

export type StartRival = (url: string, count: number) => Promise<Rival>;

/** Throws unless a rival gave what was stored. */
export function expectFive(value: unknown): unknown {
  if (!Array.isArray(value) || value.length !== 5) throw new Error('A hit is measured: a rival had nothing.');
  return value;
}
