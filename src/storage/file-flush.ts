import * as fs from "node:fs";
import { dirname } from "node:path";

/**
 * Makes a file durable.
 *
 * A failed flush is remembered: the kernel reports a lost page once and then marks it clean, so the next flush would
 * report success for bytes that never reached the disk.
 */
export class FileFlusher {
  readonly #fd: number;
  /** Directory whose entry for a new file is not durable yet. */
  #newEntryIn: string | undefined;
  #failure: Error | undefined;

  /** `newFile` is the path of a file that was just made. */
  constructor(fd: number, newFile: string | undefined) {
    this.#fd = fd;
    this.#newEntryIn = newFile === undefined ? undefined : dirname(newFile);
  }

  here(): void {
    if (this.#failure !== undefined) throw this.#failure;
    try {
      fs.fdatasyncSync(this.#fd);
      this.#syncDirectory();
    } catch (cause) {
      throw this.#remember(cause);
    }
  }

  async inPool(): Promise<void> {
    if (this.#failure !== undefined) throw this.#failure;
    try {
      await new Promise<void>((resolve, reject) => {
        fs.fdatasync(this.#fd, (error) => (error === null ? resolve() : reject(error)));
      });
      this.#syncDirectory();
    } catch (cause) {
      throw this.#remember(cause);
    }
  }

  /** Once per new file. Systems that cannot flush a directory make entries durable in their own way. */
  #syncDirectory(): void {
    const path = this.#newEntryIn;
    if (path === undefined) return;
    this.#newEntryIn = undefined;
    let directory: number | undefined;
    try {
      directory = fs.openSync(path, fs.constants.O_RDONLY);
      fs.fsyncSync(directory);
    } catch {
      // Not a failure of the file's own bytes.
    } finally {
      if (directory !== undefined) fs.closeSync(directory);
    }
  }

  #remember(cause: unknown): Error {
    this.#failure = cause instanceof Error ? cause : new Error(String(cause));
    return this.#failure;
  }
}
