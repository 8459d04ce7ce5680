import { ForwardingStorage } from "../../src/storage/forwarding-storage.js";

/** A storage whose bytes others can write as well, as those of a file. */
export class OpenToOthers extends ForwardingStorage {
  readonly descriptor = 0;
}
