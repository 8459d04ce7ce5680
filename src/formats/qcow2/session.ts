import type { Warning } from "../../base/errors.js";
import { EXTENSION, withExtension } from "./extensions.js";
import { AUTOCLEAR } from "./features.js";
import type { Qcow2Header } from "./header.js";

/**
 * The mark of a session that keeps a journal (docs/format.md, "Sessions with a journal"): an extension that names it, and an
 * autoclear bit that says that nobody has written to the image since. A program that does not know the bit clears it before
 * it writes, so a journal is never put over what somebody else has changed.
 */
const SESSION_ID_BYTES = 16;

/** The session whose journal belongs to the image as it is; undefined when there is none. */
export function sessionOf(header: Qcow2Header): Uint8Array | undefined {
  if ((header.features.autoclear & AUTOCLEAR.session) === 0n) return undefined;
  const data = header.extensions.find(({ type }) => type === EXTENSION.session)?.data;
  return data === undefined || data.length < SESSION_ID_BYTES ? undefined : data.slice(0, SESSION_ID_BYTES);
}

/** The header with the mark of `session`, or without one. */
export function withSession(header: Qcow2Header, session: Uint8Array | undefined): Qcow2Header {
  const { autoclear } = header.features;
  const bits = session === undefined ? autoclear & ~AUTOCLEAR.session : autoclear | AUTOCLEAR.session;
  return {
    ...header,
    features: { ...header.features, autoclear: bits },
    extensions: withExtension(header.extensions, EXTENSION.session, session),
  };
}

/** Anything of a session is in the header, whole or not. */
export function hasSessionMark({ features, extensions }: Qcow2Header): boolean {
  return (features.autoclear & AUTOCLEAR.session) !== 0n || extensions.some(({ type }) => type === EXTENSION.session);
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
