import { ForwardingStorage } from "./forwarding-storage.js";
import type { Storage } from "./storage.js";

class BorrowedStorage extends ForwardingStorage {
  override async close(): Promise<void> {}
}

/** `inner` as somebody may use it who must not close it: closing does nothing. */
export function borrowedStorage(inner: Storage): Storage {
  return new BorrowedStorage(inner);
}
