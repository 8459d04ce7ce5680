import { createHash } from "node:crypto";
import * as fs from "node:fs";
import { basename, join } from "node:path";
import { ZcowError } from "../base/errors.js";
import { MiB } from "../base/units.js";
import { writeHere } from "./file-transfer.js";
import { storageError } from "./storage-error.js";

/** Where a change journal is kept. Every call is over when it returns, so that it survives the end of the process from then on. */
export interface JournalPlace {
  readonly name: string;
  /** What is there; undefined when nothing is. */
  load(): Uint8Array | undefined;
  /** Begins anew with `bytes`, which take the place of what was there in one step. */
  replace(bytes: Uint8Array): void;
  append(bytes: Uint8Array): void;
  /** Drops what comes after the first `length` bytes. */
  truncate(length: number): void;
  /** Nothing is there any more. */
  remove(): void;
}

const JOURNAL_SUFFIX = ".zcow-journal";
/** Most bytes of a journal that are read: several times what `ChangeJournal` lets one grow to. */
const MAX_JOURNAL_BYTES = 512 * MiB;

/** The journal of the image at `path`, when nothing else is said: a file beside it. */
export function journalPathBeside(path: string): string {
  return `${realPath(path)}${JOURNAL_SUFFIX}`;
}

/** The journal of the image at `path` in `directory`, which may hold those of several images. */
export function journalPathIn(directory: string, path: string): string {
  const real = realPath(path);
  const mark = createHash("sha256").update(real).digest("hex").slice(0, 16);
  return join(directory, `${basename(real)}-${mark}${JOURNAL_SUFFIX}`);
}

/** Without symbolic links: the same for every way to name the image. */
function realPath(path: string): string {
  try {
    return fs.realpathSync(path);
  } catch {
    return path;
  }
}

/** A journal in a file that only its owner may use. It is never flushed: the page cache outlives the process, and that is all it is for. */
export class JournalFile implements JournalPlace {
  readonly name: string;
  #fd: number | undefined;
  #length = 0;

  constructor(path: string) {
    this.name = path;
  }

  /** Fails with `ACCESS_DENIED` when somebody else could have written the file, `FILE_TOO_LARGE` when it is too large. */
  load(): Uint8Array | undefined {
    let fd: number;
    try {
      fd = fs.openSync(this.name, fs.constants.O_RDONLY | (fs.constants.O_NOFOLLOW ?? 0));
    } catch (cause) {
      if ((cause as NodeJS.ErrnoException).code === "ENOENT") return undefined;
      throw storageError(cause, { verb: "open", name: this.name });
    }
    try {
      const stats = fs.fstatSync(fd);
      this.#requireOwn(stats);
      if (stats.size > MAX_JOURNAL_BYTES) throw this.#tooLarge(stats.size);
      return fs.readFileSync(fd);
    } finally {
      fs.closeSync(fd);
    }
  }

  replace(bytes: Uint8Array): void {
    const fresh = `${this.name}.new`;
    const before = this.#fd;
    try {
      fs.rmSync(fresh, { force: true });
      const fd = fs.openSync(fresh, fs.constants.O_RDWR | fs.constants.O_CREAT | fs.constants.O_EXCL, 0o600);
      try {
        writeHere(fd, 0, bytes);
        fs.renameSync(fresh, this.name);
      } catch (error) {
        fs.closeSync(fd);
        fs.rmSync(fresh, { force: true });
        throw error;
      }
      this.#fd = fd;
      this.#length = bytes.length;
    } catch (cause) {
      throw storageError(cause, { verb: "write", name: fresh });
    }
    if (before !== undefined) fs.closeSync(before);
  }

  append(bytes: Uint8Array): void {
    try {
      writeHere(this.#opened(), this.#length, bytes);
    } catch (cause) {
      throw storageError(cause, { verb: "write", name: this.name });
    }
    this.#length += bytes.length;
  }

  truncate(length: number): void {
    try {
      fs.ftruncateSync(this.#opened(), length);
    } catch (cause) {
      throw storageError(cause, { verb: "shorten", name: this.name });
    }
    this.#length = length;
  }

  remove(): void {
    const fd = this.#fd;
    this.#fd = undefined;
    if (fd !== undefined) fs.closeSync(fd);
    try {
      fs.rmSync(this.name, { force: true });
    } catch (cause) {
      throw storageError(cause, { verb: "remove", name: this.name });
    }
  }

  #opened(): number {
    if (this.#fd === undefined) throw new Error("a journal is written before it is begun");
    return this.#fd;
  }

  /** What is in a journal goes into the image: nobody but the owner of this process may have been able to write it. */
  #requireOwn(stats: fs.Stats): void {
    const user = process.geteuid?.();
    if (stats.isFile() && (user === undefined || (stats.uid === user && (stats.mode & 0o022) === 0))) return;
    throw new ZcowError("ACCESS_DENIED", `${this.name} is not a file that only this user could have written`, {
      data: { path: this.name },
    });
  }

  #tooLarge(size: number): ZcowError {
    return new ZcowError(
      "FILE_TOO_LARGE",
      `${this.name} has ${size} bytes, a journal has at most ${MAX_JOURNAL_BYTES}`,
      {
        data: { path: this.name, value: size, limit: MAX_JOURNAL_BYTES },
      },
    );
  }
}
