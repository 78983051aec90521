/** Names each module of the reference as applications import it. */
import { Converter } from 'typedoc';

const SUBPATHS = {
  index: 'gencache',
  'store/redis': 'gencache/redis',
  knex: 'gencache/knex',
  testing: 'gencache/testing',
  'workflow-engine': 'gencache/workflow-engine',
};

export function load(app) {
  app.converter.on(Converter.EVENT_RESOLVE_BEGIN, ({ project }) => {
    for (const module of project.children ?? []) {
      const subpath = SUBPATHS[module.name];
      if (subpath === undefined) throw new Error(`The reference knows no subpath for the module ${module.name}.`);
      module.name = subpath;
    }
  });
}
