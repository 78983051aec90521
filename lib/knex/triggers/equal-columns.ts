/** Columns that have equal values, closed transitively: a = b and b = c put a, b and c into one class. A column is a text: `2.id`. */
export class EqualColumns {
  readonly #classes = new Map<string, string>();

  equate(one: string, other: string): void {
    const [left, right] = [this.classOf(one), this.classOf(other)];
    this.#classes.set(one, right).set(other, right);
    for (const [column, own] of this.#classes) if (own === left) this.#classes.set(column, right);
  }

  /** The class of a column; of a column that is compared with no other one, itself. */
  classOf(column: string): string {
    return this.#classes.get(column) ?? column;
  }
}
