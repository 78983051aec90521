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

export function ok(check: string, message: string): Finding {
  return { status: 'ok', check, message };
}

export function warn(check: string, message: string, remedy: string): Finding {
  return { status: 'warn', check, message, remedy };
}

export function broken(check: string, message: string, remedy: string): Finding {
  return { status: 'broken', check, message, remedy };
}
