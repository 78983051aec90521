import type { Knex } from 'knex';

/**
 * Data sources with their detectors, groups of conditions with their workflows, and the indexes for the queries and bumps:
 * sources by type and id, each link from both sides, conditions by group.
 */
export async function up(db: Knex): Promise<void> {
  await db.schema.alterTable('detector', (table) => {
    table.jsonb('config').notNullable().defaultTo('{}');
  });
  await db.schema.createTable('data_source', (table) => {
    table.bigIncrements('id');
    table.text('type').notNullable();
    table.text('source_id').notNullable();
    table.unique(['type', 'source_id']);
  });
  await db.schema.createTable('data_source_detector', (table) => {
    table.bigInteger('data_source_id').notNullable().references('data_source.id').onDelete('CASCADE');
    table.bigInteger('detector_id').notNullable().references('detector.id').onDelete('CASCADE').index();
    table.primary(['data_source_id', 'detector_id']);
  });
  await db.schema.createTable('condition_group', (table) => {
    table.bigIncrements('id');
    table.text('logic').notNullable().defaultTo('any');
  });
  await db.schema.createTable('condition', (table) => {
    table.bigIncrements('id');
    table.bigInteger('condition_group_id').notNullable().references('condition_group.id').onDelete('CASCADE').index();
    table.text('type').notNullable();
    table.jsonb('comparison').notNullable();
    table.jsonb('result').notNullable().defaultTo('true');
  });
  await db.schema.createTable('workflow_condition_group', (table) => {
    table.bigInteger('workflow_id').notNullable().references('workflow.id').onDelete('CASCADE');
    table.bigInteger('condition_group_id').notNullable().references('condition_group.id').onDelete('CASCADE').index();
    table.primary(['workflow_id', 'condition_group_id']);
  });
}

export async function down(db: Knex): Promise<void> {
  for (const table of [
    'workflow_condition_group',
    'condition',
    'condition_group',
    'data_source_detector',
    'data_source',
  ]) {
    await db.schema.dropTable(table);
  }
  await db.schema.alterTable('detector', (table) => table.dropColumn('config'));
}
