import { hopsOf, namedColumns } from '../triggers/trigger-definition.js';
import type { InstalledDefinition } from '../triggers/trigger-registry.js';
import { list, type ReadTable } from './judge.js';
import { displayName } from '../postgres/identifiers.js';
import type { CoverageFinding } from './report.js';

/** What triggers watch that no entry reads: its changes bump for nothing. */
export function excess(
  definitions: readonly InstalledDefinition[],
  watched: ReadonlyMap<InstalledDefinition, string>,
  reads: readonly ReadTable[],
): CoverageFinding[] {
  const findings: CoverageFinding[] = [];
  for (const definition of definitions) {
    const oid = watched.get(definition);
    if (oid === undefined) continue;
    const readers = reads.filter(({ relation }) => relation.lineage.includes(oid));
    const table =
      readers.find(({ relation }) => relation.oid === oid)?.relation.shown ??
      displayName(definition.schema, definition.table);
    const found = (kind: CoverageFinding['kind'], message: string, remedy: string, columns?: readonly string[]) =>
      findings.push({
        ...{
          severity: 'note',
          kind,
          entries: [...new Set(readers.map(({ entry }) => entry))],
          subject: table,
          message,
          remedy,
        },
        ...(columns === undefined ? {} : { columns }),
      });
    if (readers.length === 0) {
      if (!isLookedUp(definition, definitions)) {
        found(
          'table watched and not read',
          `Triggers watch ${table}, and no entry reads it.`,
          'If no other process reads it through this cache, remove them: `gencache triggers remove`.',
        );
      }
      continue;
    }
    if (!definition.operations.includes('update')) continue;
    const read = new Set([
      ...readers.flatMap(({ columns }) => [...columns]),
      ...definition.bumps.flatMap((bump) => [...namedColumns({ ...definition, columns: null, bumps: [bump] })]),
    ]);
    const all = [...readers[0]!.relation.columns.values()];
    const unread = (definition.columns ?? all).filter((column) => !read.has(column));
    if (unread.length === 0) continue;
    const kept = all.filter((column) => read.has(column));
    found(
      'column watched and not read',
      `An UPDATE of ${list(unread)} in ${table} bumps, and no entry reads ${unread.length === 1 ? 'it' : 'them'}.`,
      `Pass \`columns: [${kept.map((column) => `'${column}'`).join(', ')}]\` to \`onChangeOf\`.`,
      unread,
    );
  }
  return findings;
}

function isLookedUp({ schema, table }: InstalledDefinition, definitions: readonly InstalledDefinition[]): boolean {
  return definitions.some(({ bumps }) =>
    bumps.some((bump) => hopsOf(bump).some((hop) => hop.schema === schema && hop.table === table)),
  );
}
