import type { Knex } from 'knex';
import type { GenerationalCache } from '../cache.js';
import type { ReadOptions } from '../entry.js';
import { integer, text } from '../model/id-kind.js';
import type { KnexContext } from '../knex/knex-source.js';
import { query } from '../knex/postgres/query.js';
import type { BumpOptions } from '../namespace.js';
import type { WorkflowCacheOptions } from './workflow-cache.js';

/** A source of data: `{ type: 'metric_query', sourceId: '12345' }`. */
export interface DataSource {
  readonly type: string;
  readonly sourceId: string;
}

/** A detector, with the columns that a processor of data needs. */
export interface Detector {
  /** A number, or text beyond 2^53. */
  readonly id: number | string;
  readonly name: string;
  readonly type: string;
  readonly config: unknown;
}

/** The detectors that must look at the data of a source. One entry for each source, `{ source_type, source }`. */
export class DetectorCache {
  readonly #sources;
  readonly #detectors;

  /** Declares `source_type`, `source` and `detectors` on the cache. Throws ConfigurationError. */
  constructor(cache: GenerationalCache<KnexContext, Knex.Transaction>, options: WorkflowCacheOptions = {}) {
    this.#sources = cache.namespace('source_type', text()).namespace('source', text());
    this.#detectors = this.#sources.list('detectors', {
      ...options,
      load: (ids, { db }) =>
        query<DetectorRow>(db, DETECTORS_SQL, [ids.map((id) => id.source_type), ids.map((id) => id.source)]),
      by: (row) => ({ source_type: row.source_type, source: row.source }),
      value: toDetector,
    });
  }

  /**
   * For each source its enabled detectors, by id; none for an unknown source. `sources: [n] -> [n]`, same order.
   *
   * Warm, one command for all sources; misses cost one query and a second command.
   */
  getDetectorsByDataSources(
    sources: readonly DataSource[],
    options?: ReadOptions & { readonly trx?: Knex.Transaction },
  ): Promise<Detector[][]> {
    return this.#detectors.fetchMany(sources.map(scopeOf), options);
  }

  /** Bumps these sources, after a change of them, their links or their detectors. One command for each 1,000. */
  async bumpDataSources(sources: readonly DataSource[], options?: BumpOptions): Promise<void> {
    await this.#sources.bumpMany(sources.map(scopeOf), options);
  }
}

function scopeOf({ type, sourceId }: DataSource) {
  return { source_type: type, source: sourceId };
}

interface DetectorRow {
  readonly source_type: string;
  readonly source: string;
  readonly id: string;
  readonly name: string;
  readonly type: string;
  readonly config: unknown;
}

/** `?`: types and ids of sources, of the same length. By index alone. Reads one snapshot; takes no locks. */
export const DETECTORS_SQL = `
  select wanted.source_type, wanted.source, detector.id, detector.name, detector.type, detector.config
  from unnest(?::text[], ?::text[]) as wanted (source_type, source)
  join data_source on data_source.type = wanted.source_type and data_source.source_id = wanted.source
  join data_source_detector as link on link.data_source_id = data_source.id
  join detector on detector.id = link.detector_id and detector.enabled
  order by detector.id`;

const ID = integer();

function toDetector({ id, name, type, config }: DetectorRow): Detector {
  return { id: ID.value(id)!, name, type, config };
}
