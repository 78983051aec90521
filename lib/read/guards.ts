import { type Generation } from '../model/generation.js';
import type { GenerationKey } from '../model/key.js';
import type { RegisteredScope } from '../model/scope-registry.js';
import { generationTtl } from '../model/ttl.js';
import { Vector } from '../model/vector.js';

interface Guard {
  readonly key: GenerationKey;
  readonly token: Generation;
  readonly ttlMs: number;
}

/**
 * The generations of several vectors, as one command of the store names them: each once. Generations of other partitions
 * are left out, since one command has keys of one partition: guards only spare an orphan or a load (docs/protocol.md,
 * rule 1).
 */
export class Guards {
  readonly list: Guard[] = [];
  readonly #indexes = new Map<RegisteredScope, number>();

  /** Adds the generations of a vector. Returns their indexes in `list`. */
  add(vector: Vector): number[] {
    const { scope: home, scopes, definition } = Vector.addressOf(vector);
    const indexes: number[] = [];
    for (let i = 0; i < scopes.length; i++) {
      const scope = scopes[i]!;
      if (scope.partition !== home.partition) continue;
      const token = vector.generations[i]!;
      let index = this.#indexes.get(scope);
      if (index === undefined || this.list[index]!.token !== token) {
        index = this.list.push({ key: scope.generationKey, token, ttlMs: generationTtl(definition.storedMs) }) - 1;
        this.#indexes.set(scope, index);
      }
      indexes.push(index);
    }
    return indexes;
  }
}
