const ignored = () => {};

/** For Knex: that connections break is what these specs are about. It would tell of each on stdout. */
export const SILENT = { warn: ignored, error: ignored, deprecate: ignored, debug: ignored };
