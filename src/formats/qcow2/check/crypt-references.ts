import { isZcowError } from "../../../base/errors.js";
import { LUKS_HEADER_BYTES } from "../../../codec/luks/luks-limits.js";
import type { CryptHeader } from "../header.js";
import type { CheckSession } from "./check-session.js";
import { countRegion } from "./regions.js";

/**
 * Counts the LUKS header (qcow2 specification, "Full disk encryption header pointer"), and looks whether it is there. When it is not, the
 * clusters with the keys look leaked, and giving them away would lose all data.
 */
export async function countCryptHeader(session: CheckSession): Promise<void> {
  const place = session.header.cryptHeader;
  if (place === undefined) return;
  countRegion(session, place.offset, place.length);
  const why = await faultOf(session, place);
  if (why === undefined) return;
  session.report(
    { kind: "encryption-header", severity: "corruption", structure: "encryption header", offset: place.offset },
    () => `ERROR encryption header offset=0x${place.offset.toString(16)} size=0x${place.length.toString(16)}: ${why}`,
  );
  session.unreadReferences = "the encryption header is not where the header says";
}

/** Why there is no LUKS header that fits the place; undefined when there is one. */
async function faultOf(session: CheckSession, { offset, length }: CryptHeader): Promise<string | undefined> {
  const { clusterSize } = session.geometry;
  if (offset + length - session.fileLength >= clusterSize) return "it reaches past the end of the file";
  const bytes = new Uint8Array(Math.min(LUKS_HEADER_BYTES, length));
  const wait = session.read(offset, bytes, "the encryption header");
  if (wait) await wait;
  const { decodeLuksHeader } = await import("../../../codec/luks/luks-header.js");
  try {
    decodeLuksHeader(bytes, length);
    return undefined;
  } catch (error) {
    if (!isZcowError(error)) throw error;
    return error.message;
  }
}
