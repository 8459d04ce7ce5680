/** Termination requests: how either side says why it ends a connection (NVMe/TCP, "Terminate Connection Request"). */
import { COMMON, HEADER_LENGTH, PDU, type PduError, TERMINATE_LENGTH_MAX } from "./pdu-format.js";

const FIELD = { fes: 8, fei: 10 } as const;

/** `offender`: the PDU that was wrong, from its first byte; as much of it as fits is sent back. */
export function encodeC2HTermReq(error: PduError, offender: Uint8Array): Uint8Array {
  const copied = Math.min(offender.length, TERMINATE_LENGTH_MAX - HEADER_LENGTH.terminate);
  const bytes = new Uint8Array(HEADER_LENGTH.terminate + copied);
  const view = new DataView(bytes.buffer);
  bytes[COMMON.type] = PDU.c2hTermReq;
  bytes[COMMON.headerLength] = HEADER_LENGTH.terminate;
  view.setUint32(COMMON.pduLength, bytes.length, true);
  view.setUint16(FIELD.fes, error.fes, true);
  view.setUint32(FIELD.fei, error.fei, true);
  bytes.set(offender.subarray(0, copied), HEADER_LENGTH.terminate);
  return bytes;
}

/** The Fatal Error Status of a termination request. */
export function fatalErrorStatusOf(view: DataView, at: number): number {
  return view.getUint16(at + FIELD.fes, true);
}
