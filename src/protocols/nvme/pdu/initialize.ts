/** The first exchange of a connection: ICReq from the host, ICResp back (NVMe/TCP, "Initialize Connection"). */
import { COMMON, FATAL, HEADER_LENGTH, PDU, PduError } from "./pdu-format.js";

/** What both sides agreed on. */
export interface ConnectionParameters {
  readonly headerDigest: boolean;
  readonly dataDigest: boolean;
  /** Bytes that the start of data in PDUs to the host must be a multiple of (HPDA). */
  readonly hostAlignment: number;
}

const FIELD = { version: 8, alignment: 10, digest: 11, limit: 12 } as const;
const DIGEST = { header: 1, data: 2 } as const;
const ALIGNMENT_MAX = 31;

/** Reads an ICReq whose length was checked. Throws `PduError` for a version or a field that is not known. */
export function parseIcReq(view: DataView, at: number): ConnectionParameters {
  const version = view.getUint16(at + FIELD.version, true);
  if (version !== 0) {
    throw new PduError(FATAL.unsupportedParameter, FIELD.version, `ICReq asks for PDU format version ${version}`);
  }
  const alignment = view.getUint8(at + FIELD.alignment);
  if (alignment > ALIGNMENT_MAX) {
    throw new PduError(
      FATAL.invalidHeaderField,
      FIELD.alignment,
      `ICReq has HPDA ${alignment}, above ${ALIGNMENT_MAX}`,
    );
  }
  const digest = view.getUint8(at + FIELD.digest);
  if (digest > (DIGEST.header | DIGEST.data)) {
    throw new PduError(FATAL.invalidHeaderField, FIELD.digest, `ICReq has reserved digest bits: ${digest}`);
  }
  // MAXR2T needs no look: one R2T per command at a time is what the smallest value allows.
  return {
    headerDigest: (digest & DIGEST.header) !== 0,
    dataDigest: (digest & DIGEST.data) !== 0,
    hostAlignment: (alignment + 1) * 4,
  };
}

/** `h2cDataBytes`: MAXH2CDATA. CPDA is 0, the one value that Linux takes. */
export function encodeIcResp(parameters: ConnectionParameters, h2cDataBytes: number): Uint8Array {
  const bytes = new Uint8Array(HEADER_LENGTH.initialize);
  const view = new DataView(bytes.buffer);
  bytes[COMMON.type] = PDU.icResp;
  bytes[COMMON.headerLength] = HEADER_LENGTH.initialize;
  view.setUint32(COMMON.pduLength, HEADER_LENGTH.initialize, true);
  bytes[FIELD.digest] = (parameters.headerDigest ? DIGEST.header : 0) | (parameters.dataDigest ? DIGEST.data : 0);
  view.setUint32(FIELD.limit, h2cDataBytes, true);
  return bytes;
}
