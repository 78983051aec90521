import type { LineageGap } from './incarnation.js';

/** The parts of the lineage that PostgreSQL does not tell, and the reasons. */
export function describeGaps(gaps: readonly LineageGap[]): string {
  const parts = gaps.map(({ part, reason }) => `its ${part} (${reason})`);
  return `PostgreSQL does not tell ${parts.join(', nor ')}`;
}

/** The statements that make the lineage known, and the option that does without it. */
export function lineageRemedy(gaps: readonly LineageGap[]): string {
  const grants = gaps.flatMap(({ grant }) => grant ?? []);
  return [
    ...(grants.length > 0 ? [`As a superuser, run: ${grants.join(' ')} Then restart the relays.`] : []),
    ...(grants.length < gaps.length ? ['On Aurora, logical replication (`wal_level = logical`) makes it tell.'] : []),
    'Or, if the host ensures that a primary which was succeeded takes no more queries, say so: `gencache relay --fenced`, ' +
      '`startRelay({ fenced: true })`.',
  ].join(' ');
}

/** The cost of an unknown lineage, for the log of a relay. */
export function describeUnknownLineage(
  gaps: readonly LineageGap[],
  { bounds, fenced }: { readonly bounds: readonly number[]; readonly fenced: boolean },
): string {
  const fact = `${describeGaps(gaps)}. The relay notices every failover, but not that its own primary was succeeded and runs on.`;
  if (fenced) return `${fact} \`fenced\` says that the host ends such a primary.`;
  const cost = bounds.length === 0 ? '' : ' So it guarantees no bound: caches with `maxStalenessMs` read the source.';
  return `${fact}${cost} ${lineageRemedy(gaps)}`;
}
