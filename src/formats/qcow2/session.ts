import type { Warning } from "../../base/errors.js";
import { EXTENSION, withExtension } from "./extensions.js";
import { AUTOCLEAR } from "./features.js";
import type { Qcow2Header } from "./header.js";

/**
 * The mark of a session that keeps a journal (docs/format.md, "Sessions with a journal"): an extension that names it, and an
 * autoclear bit that says that nobody has written to the image since. A program that does not know the bit clears it before
 * it writes, so a journal is never put over what somebody else has changed.
 *
 * The extension also keeps the last session whose acknowledged writes were lost, as the image's generation.
 */
const ID_BYTES = 16;
const EXTENSION_BYTES = 2 * ID_BYTES;
const NONE = new Uint8Array(ID_BYTES);

/** The session whose journal belongs to the image as it is; undefined when there is none. */
export function sessionOf(header: Qcow2Header): Uint8Array | undefined {
  return (header.features.autoclear & AUTOCLEAR.session) === 0n ? undefined : idAt(header, 0);
}

/**
 * Tells the contents of the image from what they were before acknowledged writes were lost, 16 bytes; undefined when that never
 * happened. Of an image just opened: a session that is still marked then is lost.
 */
export function generationOf(header: Qcow2Header): Uint8Array | undefined {
  return sessionOf(header) ?? idAt(header, ID_BYTES);
}

function idAt(header: Qcow2Header, at: number): Uint8Array | undefined {
  const data = header.extensions.find(({ type }) => type === EXTENSION.session)?.data;
  if (data === undefined || data.length < EXTENSION_BYTES) return undefined;
  const id = data.slice(at, at + ID_BYTES);
  return id.some((byte) => byte !== 0) ? id : undefined;
}

/** The header with the mark of `session`, or without one. */
export function withSession(header: Qcow2Header, session: Uint8Array | undefined): Qcow2Header {
  return withIds(header, session, idAt(header, ID_BYTES));
}

/** As `withSession`; a session that is marked now is lost. */
export function withNextSession(header: Qcow2Header, session: Uint8Array | undefined): Qcow2Header {
  return withIds(header, session, generationOf(header));
}

function withIds(
  header: Qcow2Header,
  session: Uint8Array | undefined,
  generation: Uint8Array | undefined,
): Qcow2Header {
  const { autoclear } = header.features;
  const bits = session === undefined ? autoclear & ~AUTOCLEAR.session : autoclear | AUTOCLEAR.session;
  let data: Uint8Array | undefined;
  if (session !== undefined || generation !== undefined) {
    data = new Uint8Array(EXTENSION_BYTES);
    data.set(session ?? NONE);
    data.set(generation ?? NONE, ID_BYTES);
  }
  return {
    ...header,
    features: { ...header.features, autoclear: bits },
    extensions: withExtension(header.extensions, EXTENSION.session, data),
  };
}

/** What a reader has to know who finds the mark of a session, and may not finish it. */
export function unfinishedSession(path: string): Warning {
  return {
    code: "SESSION_UNFINISHED",
    message: `${path} is in use by a server, or was when the server was killed: what was written since its last flush does not show before the image is closed, or opened for writing`,
    data: { path },
  };
}

/** Why an image that was to have a journal has none. */
export function noJournal(path: string, cause: unknown): Warning {
  const reason = cause instanceof Error ? cause.message : String(cause);
  return {
    code: "NO_JOURNAL",
    message: `${path}: what is not flushed is lost if this process is killed: ${reason}`,
    data: { path },
  };
}
