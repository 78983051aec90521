/** A bound that readers have asked for in vain. */
export interface BoundDemand {
  readonly boundMs: number;
  /** The instant of the last request, by the store's clock. */
  readonly askedAtMs: number;
}

/** Time for which a demand stands after its last request, in ms. */
export const DEMAND_STANDS_MS = 600_000;

/** Returns the demands in a value of the form `<bound>@<asked at>,...`, smallest bound first. */
export function parseDemands(value: string): BoundDemand[] {
  return [...value.matchAll(/(\d+)@(\d+)/g)]
    .map(([, bound, at]) => ({ boundMs: Number(bound), askedAtMs: Number(at) }))
    .sort((a, b) => a.boundMs - b.boundMs);
}

/** Returns the value with one demand more, as of `demand.askedAtMs`, and without those that no longer stand. */
export function addDemand(value: string, demand: BoundDemand): string {
  const standing = parseDemands(value).filter(
    ({ boundMs, askedAtMs }) => boundMs !== demand.boundMs && askedAtMs > demand.askedAtMs - DEMAND_STANDS_MS,
  );
  return [demand, ...standing].map(({ boundMs, askedAtMs }) => `${boundMs}@${askedAtMs}`).join();
}
