/**
 * Paths as text, for programs that do not know the namespaces: a relay, the command line. `key.ts` has the grammar.
 */

const SEGMENT_SOURCE = '[a-z][A-Za-z0-9_]{0,63}=[A-Za-z0-9_.~%-]{0,220}';
const SEGMENT = new RegExp(`^${SEGMENT_SOURCE}$`);
/** Most segments of a path. */
const DEPTH_MAX = 16;
const SCOPE = new RegExp(`^(?:${SEGMENT_SOURCE}(?:/${SEGMENT_SOURCE}){0,${DEPTH_MAX - 1}})?$`);

/** Whether a path is valid: its own nearest scope. */
export function isScope(path: string): boolean {
  return SCOPE.test(path);
}

/** The path itself, or its nearest valid ancestor. */
export function nearestScope(path: string): string {
  const good: string[] = [];
  for (const segment of path.split('/')) {
    if (!SEGMENT.test(segment)) break;
    good.push(segment);
  }
  return good.slice(0, DEPTH_MAX).join('/');
}

/** The scopes that have none of the others above them: a bump of a scope covers everything below it. */
export function topmost(paths: ReadonlySet<string>): string[] {
  if (paths.has('')) return [''];
  return [...paths].filter((path) => {
    for (let end = path.lastIndexOf('/'); end > 0; end = path.lastIndexOf('/', end - 1)) {
      if (paths.has(path.slice(0, end))) return false;
    }
    return true;
  });
}
