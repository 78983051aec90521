import { expect } from 'chai';
import { build } from 'hdr-histogram-js';
import type { Phase } from '../../demo/phase.js';
import { brokenPromises, queriesWithoutCache, toJson, toTable } from '../../demo/report.js';

describe("The demo's report", () => {
  it('finds no broken promise in good numbers', () => {
    expect(brokenPromises(result())).to.deep.equal([]);
  });

  it('finds each broken promise', () => {
    expect(brokenPromises(result({ staleReads: 1 }))).to.deep.equal(['1 of 20000 warm reads were stale.']);
    expect(brokenPromises(result({ excused: 2_000 }))).to.deep.equal([
      '10.0 % of the warm reads were excused; the limit is 10 %.',
    ]);
    expect(brokenPromises(result({ queries: 600, queriesRun: 600 }))).to.deep.equal([
      'In the warm phase the cache avoided 88.0 % of the queries; the least is 90.0 %.',
    ]);
    expect(brokenPromises(result({ queriesRun: 99 }))).to.deep.equal([
      'In the warm phase Knex sent 100 queries and the cache counted 99.',
    ]);
    expect(brokenPromises(result({}, { staleReads: 3 }))).to.deep.equal([
      "With the cache off 3 reads differ from the demo's own tables: the oracle is wrong.",
    ]);
  });

  it('scales the queries of the replayed events to the events of the phase', () => {
    expect(
      queriesWithoutCache({ phase: phase({ events: 5_000 }), replay: phase({ events: 2_000, queries: 2_004 }) }),
    ).to.equal(5_010);
  });

  it('has the numbers of the warm phase in its JSON, and those of the cold phase below', () => {
    const json = JSON.parse(toJson(result())) as Record<string, unknown>;
    const { cold, ...warm } = json;
    expect(warm).to.deep.equal({
      events: 5_000,
      reads: 20_000,
      hits: 19_000,
      hitRatio: 0.95,
      localHits: 0,
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

  it('notes below its table that the queries without the cache are measured and scaled', () => {
    const table = toTable(result());
    expect(table).to.match(/without the cache ¹ +│ +5,000 │ +5,000 │/);
    expect(table).to.match(/¹ Measured: .* again with\n +the cache off, scaled to the events of the phase/);
    expect(table).to.match(/Stale reads: 0, of 40,000/);
    expect(table).to.not.contain('from the process');
  });

  it('has a row for the local tier if there is one', () => {
    expect(toTable(result({ localHits: 15_000 }))).to.match(/values from the process +│ +0.0 % │ +75.0 % │/);
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
    localHits: 0,
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
