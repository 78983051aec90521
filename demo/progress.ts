import { Presets, SingleBar } from 'cli-progress';

/** Shows a bar on a terminal while `work` runs, and nothing elsewhere. `work` tells which share, 0 to 1, is done. */
export async function withProgress<T>(
  label: string,
  work: (progress: (done: number) => void) => Promise<T>,
  shown: boolean,
): Promise<T> {
  if (!shown) return work(() => {});
  const format = `  ${label.padEnd(24)} {bar} {percentage} %`;
  const bar = new SingleBar({ format, clearOnComplete: true, hideCursor: true, stream: process.stderr }, Presets.rect);
  bar.start(1, 0);
  try {
    return await work((done) => bar.update(done));
  } finally {
    bar.stop();
  }
}
