import { type ZoneIndex, zoneIndex } from "../../../base/units.js";
import type { AddRecord, ChangeJournal, ChangeSource } from "../../../storage/change-journal.js";
import type { ZoneModel } from "../../../zoned/zone-model.js";
import { JOURNAL_STAGE } from "../journal-stages.js";
import { WRITE_POINTER_BYTES } from "../zoned-layouts.js";
import type { PointerTable } from "./pointer-table.js";

/** Keeps the journal true about write pointers: the entry of a zone is in it whenever it may differ from the table in the file. */
export class PointerChanges implements ChangeSource {
  readonly #model: ZoneModel;
  readonly #table: PointerTable;
  /** Moved, and not in the journal yet. */
  readonly #fresh = new Set<ZoneIndex>();
  /** In the journal, and maybe not in the table. */
  readonly #unsaved = new Set<ZoneIndex>();
  readonly #entry = new Uint8Array(WRITE_POINTER_BYTES);

  private constructor(model: ZoneModel, table: PointerTable) {
    this.#model = model;
    this.#table = table;
  }

  static watch(model: ZoneModel, table: PointerTable, journal: ChangeJournal): void {
    const changes = new PointerChanges(model, table);
    model.onMove = (zone) => {
      changes.#fresh.add(zone);
      journal.touch();
    };
    // What a failed reset or finish may have left in the table must not outlive a killed process that said that it failed.
    table.onDoubt = (first, past) => {
      for (let zone = first; zone < past; zone = zoneIndex(zone + 1)) {
        if (!model.geometry.isConventional(zone)) changes.#fresh.add(zone);
      }
      journal.touch();
    };
    journal.register(changes);
  }

  takeChanges(add: AddRecord): void {
    for (const zone of this.#fresh) {
      // Also when the table has it by now: an older record may say something else.
      this.#add(zone, add, true);
      this.#unsaved.add(zone);
    }
    this.#fresh.clear();
  }

  allUnsaved(add: AddRecord): void {
    for (const zone of this.#fresh) this.#unsaved.add(zone);
    this.#fresh.clear();
    for (const zone of this.#unsaved) if (!this.#add(zone, add, false)) this.#unsaved.delete(zone);
  }

  /** False when the table has it. */
  #add(zone: ZoneIndex, add: AddRecord, always: boolean): boolean {
    const isStored = this.#table.encodeEntry(zone, this.#model.committedPointer(zone), this.#entry);
    if (!isStored || always) add(JOURNAL_STAGE.writePointers, this.#table.entryOffset(zone), this.#entry);
    return !isStored;
  }
}
