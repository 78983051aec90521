import type { Knex } from 'knex';

/**
 * The four tables of the workflow engine, and the indexes for its query and its bumps:
 * links by detector (the primary key) and by workflow, workflows by environment.
 */
export async function up(db: Knex): Promise<void> {
  await db.schema.createTable('environment', (table) => {
    table.bigIncrements('id');
    table.text('name').notNullable();
  });
  await db.schema.createTable('detector', (table) => {
    table.bigIncrements('id');
    table.text('name').notNullable();
    table.text('type').notNullable();
    table.boolean('enabled').notNullable().defaultTo(true);
  });
  await db.schema.createTable('workflow', (table) => {
    table.bigIncrements('id');
    table.text('name').notNullable();
    table.bigInteger('environment_id').references('environment.id').onDelete('CASCADE').index();
    table.boolean('enabled').notNullable().defaultTo(true);
    table.jsonb('config').notNullable().defaultTo('{}');
    table.timestamp('updated_at').notNullable().defaultTo(db.fn.now());
  });
  await db.schema.createTable('detector_workflow', (table) => {
    table.bigInteger('detector_id').notNullable().references('detector.id').onDelete('CASCADE');
    table.bigInteger('workflow_id').notNullable().references('workflow.id').onDelete('CASCADE').index();
    table.primary(['detector_id', 'workflow_id']);
  });
}

export async function down(db: Knex): Promise<void> {
  for (const table of ['detector_workflow', 'workflow', 'detector', 'environment']) await db.schema.dropTable(table);
}
