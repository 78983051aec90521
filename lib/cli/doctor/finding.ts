/** The result of one check of an installation. */
export interface Finding {
  /** `broken`: a promise does not hold. `warn`: it holds, but weaker than possible, or for a limited time. */
  readonly status: 'ok' | 'warn' | 'broken';
  /** The subject of the check: `relay`, `Redis memory`. */
  readonly check: string;
  /** The fact. */
  readonly message: string;
  /** The remedy; without one the status is `ok`. */
  readonly remedy?: string;
}

/** The findings about each of several servers or partitions: equal ones as one, which says where it was made. */
export function findingsOfEach(
  unit: 'primaries' | 'partitions',
  each: readonly { readonly name: string; readonly findings: readonly Finding[] }[],
): Finding[] {
  if (each.length === 1) return [...each[0]!.findings];
  const equal = new Map<string, { readonly finding: Finding; readonly names: string[] }>();
  for (const { name, findings } of each) {
    for (const finding of findings) {
      const key = JSON.stringify(finding);
      const known = equal.get(key);
      if (known === undefined) equal.set(key, { finding, names: [name] });
      else known.names.push(name);
    }
  }
  return [...equal.values()].map(({ finding, names }) => {
    const some =
      names.length > NAMED_MAX
        ? `${names.slice(0, NAMED_MAX).join(', ')} and ${names.length - NAMED_MAX} more`
        : names.join(', ');
    const where = names.length === each.length ? `all ${each.length} ${unit}` : some;
    return { ...finding, message: `${finding.message} (${where})` };
  });
}

const NAMED_MAX = 3;

export function ok(check: string, message: string): Finding {
  return { status: 'ok', check, message };
}

export function warn(check: string, message: string, remedy: string): Finding {
  return { status: 'warn', check, message, remedy };
}

export function broken(check: string, message: string, remedy: string): Finding {
  return { status: 'broken', check, message, remedy };
}
