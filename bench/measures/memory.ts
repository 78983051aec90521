import type { Measure } from '../bench.js';

/** What a million entries and their generations take of Redis. */
export const memory: Measure = async ({ million }) => {
  const { bytesPerEntry, bytesPerGeneration, bytesPerPlain, bytesOfPayload, entries, generations } = await million();
  const none = { subjectMs: null, baselineMs: null, commands: null, unit: 'bytes' } as const;
  const row = (name: string, subject: string, baseline: string, subjectBytes: number, baselineBytes: number) => {
    const ratio = subjectBytes / baselineBytes;
    return { name, subject, baseline, ratio, interval: [ratio, ratio] as const, ...none, subjectBytes, baselineBytes };
  };
  return [
    {
      ...row('memory.entry', 'an entry', 'the value under a plain key', bytesPerEntry, bytesPerPlain),
      note: `of ${entries.toLocaleString('en')}; its value alone has ${bytesOfPayload} bytes`,
    },
    {
      ...row('memory.generation', 'a generation', 'an entry', bytesPerGeneration, bytesPerEntry),
      note: `of ${generations.toLocaleString('en')}`,
    },
  ];
};
