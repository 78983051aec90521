/** What one look at an installation came to. */
export interface Finding {
  /** `broken`: something promised does not hold. `warn`: it holds, and less than it could, or not for long. */
  readonly status: 'ok' | 'warn' | 'broken';
  /** What was looked at: `relay`, `Redis memory`. */
  readonly check: string;
  readonly message: string;
  /** What to do, unless all is well. */
  readonly remedy?: string;
}

export function ok(check: string, message: string): Finding {
  return { status: 'ok', check, message };
}

export function warn(check: string, message: string, remedy: string): Finding {
  return { status: 'warn', check, message, remedy };
}

export function broken(check: string, message: string, remedy: string): Finding {
  return { status: 'broken', check, message, remedy };
}
