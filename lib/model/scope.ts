/** A namespace bound to ids. `Namespace.scope` makes one, for the `dependsOn` of an entry. */
export interface Scope {
  /** `detector=42/environment=7`; empty for global. */
  readonly path: string;
  /** The namespace's name: `detector`; `global` for the root. */
  readonly level: string;
}
