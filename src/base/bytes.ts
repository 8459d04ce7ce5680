const TWO_32 = 0x1_0000_0000;

/** A view on exactly the bytes of `bytes`. */
export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** Writes a safe integer as unsigned 64-bit, big-endian unless told. */
export function writeU64(view: DataView, at: number, value: number, littleEndian = false): void {
  const high = Math.floor(value / TWO_32);
  const low = value % TWO_32;
  view.setUint32(at, littleEndian ? low : high, littleEndian);
  view.setUint32(at + 4, littleEndian ? high : low, littleEndian);
}
