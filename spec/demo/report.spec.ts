import { expect } from 'chai';
import { build } from 'hdr-histogram-js';
import type { Phase } from '../../demo/phase.js';
import { complaints, queriesWithoutCache, toJson, toTable } from '../../demo/report.js';

describe("The demo's report", () => {
  it('says nothing when every promise was kept', () => {
    expect(complaints(result())).to.deep.equal([]);
  });

  it('complains of every promise that was broken', () => {
    expect(complaints(result({ staleReads: 1 }))).to.deep.equal(['1 of 20000 warm reads were stale.']);
    expect(complaints(result({ excused: 2_000 }))).to.deep.equal([
      '10.0 % of the warm reads needed an excuse: 10 % or more.',
    ]);
    expect(complaints(result({ queries: 600, queriesRun: 600 }))).to.deep.equal([
      'Warm, 88.0 % of the queries were avoided: less than 90.0 %.',
    ]);
    expect(complaints(result({ queriesRun: 99 }))).to.deep.equal([
      'In the warm phase Knex sent 100 queries and the cache counted 99.',
    ]);
    expect(complaints(result({}, { staleReads: 3 }))).to.deep.equal([
      "With the cache off 3 reads differ from the demo's own tables: its oracle is wrong.",
    ]);
  });

  it('scales the queries of the events replayed to the events of the phase', () => {
    expect(
      queriesWithoutCache({ phase: phase({ events: 5_000 }), replay: phase({ events: 2_000, queries: 2_004 }) }),
    ).to.equal(5_010);
  });

  it("has the warm phase's numbers in its JSON, and the cold one's below", () => {
    const json = JSON.parse(toJson(result())) as Record<string, unknown>;
    const { cold, ...warm } = json;
    expect(warm).to.deep.equal({
      events: 5_000,
      reads: 20_000,
      hits: 19_000,
      hitRatio: 0.95,
      queries: 100,
      queriesWithoutCache: 5_000,
      bumps: { global: 0, detector: 3, environment: 4 },
      staleReads: 0,
      excused: 0,
      sampled: 20_000,
      p50Ms: 0.25,
      p99Ms: 0.25,
      redis: 'embedded',
      postgres: 'external',
    });
    expect(cold).to.have.all.keys(Object.keys(warm));
  });

  it('says in its table that the queries without the cache are measured and scaled', () => {
    const table = toTable(result());
    expect(table).to.match(/without the cache ¹ +│ +5,000 │ +5,000 │/);
    expect(table).to.match(/¹ Measured: .* again with\n +the cache off, scaled to the events of the phase/);
    expect(table).to.match(/Stale reads: none, of 40,000/);
  });
});

function result(warm: Partial<Phase> = {}, replay: Partial<Phase> = {}) {
  const off = phase({ events: 2_000, queries: 2_000, queriesRun: 2_000, hits: 0 });
  return {
    redis: 'embedded',
    postgres: 'external',
    cold: { phase: phase({ queries: 2_000, queriesRun: 2_000 }), replay: off },
    warm: { phase: phase(warm), replay: { ...off, ...replay } },
  } as const;
}

function phase(differences: Partial<Phase>): Phase {
  const latencies = build();
  latencies.recordValue(250);
  return {
    events: 5_000,
    seconds: 5,
    reads: 20_000,
    hits: 19_000,
    bypasses: 0,
    queries: 100,
    queriesRun: 100,
    bumps: { global: 0, detector: 3, environment: 4 },
    edits: 7,
    sampled: 20_000,
    excused: 0,
    staleReads: 0,
    latencies,
    ...differences,
  };
}
