// What was painted and is not saved yet: a list of operations with a place in it, for undo and redo. It is kept by the
// browser for this tab, and survives a reload and a server that is killed.

export class Draft {
  constructor(key) {
    this.key = `draft ${key}`;
    const kept = sessionStorage.getItem(this.key);
    this.isKept = kept !== null;
    Object.assign(this, kept ? JSON.parse(kept) : { operations: [], place: 0, base: null });
  }

  /** Starts from strokes that are saved; `base` names the saved map. */
  begin(strokes, base) {
    this.operations = strokes.map((add) => ({ add }));
    this.place = strokes.length;
    this.base = base;
    this.isKept = false;
  }

  get strokes() {
    const done = this.operations.slice(0, this.place);
    const cleared = done.findLastIndex((operation) => operation.clear);
    return done.slice(cleared + 1).map((operation) => operation.add);
  }

  get canUndo() {
    return this.place > 0;
  }

  get canRedo() {
    return this.place < this.operations.length;
  }

  do(operation) {
    this.operations = [...this.operations.slice(0, this.place), operation];
    this.place += 1;
    this.#keep();
  }

  move(by) {
    this.place += by;
    this.#keep();
  }

  #keep() {
    const { operations, place, base } = this;
    this.isKept = true;
    try {
      sessionStorage.setItem(this.key, JSON.stringify({ operations, place, base }));
    } catch {
      // The browser's storage is full: the draft lives as long as the page.
    }
  }

  /** The strokes are saved as `base`. */
  saved(base) {
    this.base = base;
    this.isKept = false;
    sessionStorage.removeItem(this.key);
  }

  forget() {
    sessionStorage.removeItem(this.key);
  }
}
