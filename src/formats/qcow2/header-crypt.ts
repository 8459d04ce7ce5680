import { viewOf, writeU64 } from "../../base/bytes.js";
import { ZcowError } from "../../base/errors.js";
import type { CryptHeader } from "./header.js";
import { FIELD, type HeaderFields } from "./header-fields.js";
import { MAX_CRYPT_HEADER_BYTES, MAX_HOST_OFFSET } from "./limits.js";

/** What the header says about encryption: the method, and for LUKS where its own header lies. */

const AES = 1;
const LUKS = 2;
const CRYPT_HEADER_BYTES = 16;

/** crypt_method is one the format defines. */
export function checkCryptMethod(fields: HeaderFields): void {
  if (fields.cryptMethod <= LUKS) return;
  throw new ZcowError(
    "QCOW2_CRYPT_METHOD",
    `Header: crypt_method ${fields.cryptMethod} is not a known encryption method (0 none, ${AES} AES, ${LUKS} LUKS)`,
    {
      data: {
        structure: "header",
        field: "crypt_method",
        offset: FIELD.cryptMethod,
        value: fields.cryptMethod,
        limit: LUKS,
      },
      stockText: `Unsupported encryption method ${fields.cryptMethod}`,
    },
  );
}

/** LUKS needs the extension that points to its header. Throws `QCOW2_CRYPT_HEADER`. */
export function refuseMissingCryptHeader({ cryptMethod }: HeaderFields): void {
  if (cryptMethod !== LUKS) return;
  const message = `crypt_method ${cryptMethod} (LUKS) needs the encryption header extension, which is missing`;
  const stockText = `Missing CRYPTO header for crypt method ${cryptMethod}`;
  throw cryptFault("crypt_method", cryptMethod, LUKS, message, stockText);
}

/** The extension that points to the LUKS header; only with LUKS. Throws `QCOW2_CRYPT_HEADER`. */
export function decodeCryptHeader(data: Uint8Array, fields: HeaderFields): CryptHeader {
  const method = fields.cryptMethod;
  if (method !== LUKS) {
    const message = `the encryption header extension belongs to crypt_method ${LUKS} (LUKS), but crypt_method is ${method}`;
    throw cryptFault(
      "crypt_method",
      method,
      LUKS,
      message,
      "CRYPTO header extension only expected with LUKS encryption method",
    );
  }
  if (data.length !== CRYPT_HEADER_BYTES) {
    const message = `the encryption header extension has ${data.length} bytes instead of ${CRYPT_HEADER_BYTES}`;
    const stockText = `CRYPTO header extension size ${data.length}, but expected size ${CRYPT_HEADER_BYTES}`;
    throw cryptFault("length", data.length, CRYPT_HEADER_BYTES, message, stockText);
  }
  const offset = viewOf(data).getBigUint64(0);
  const length = viewOf(data).getBigUint64(8);
  if (offset % BigInt(fields.clusterSize) !== 0n) {
    const message = `the encryption header offset ${offset} is not a multiple of the cluster size ${fields.clusterSize}`;
    const stockText = `Encryption header offset '${offset}' is not a multiple of cluster size '${fields.clusterSize}'`;
    throw cryptFault("offset", offset, fields.clusterSize, message, stockText);
  }
  if (offset + length > MAX_HOST_OFFSET) {
    const message = `the encryption header of ${length} bytes at offset ${offset} ends above 2^53`;
    throw new ZcowError("QCOW2_CRYPT_HEADER", `Header: ${message}`, {
      data: { structure: "encryption header extension", field: "length", value: length, limit: MAX_HOST_OFFSET },
    });
  }
  if (length > MAX_CRYPT_HEADER_BYTES) {
    const message = `the encryption header has ${length} bytes, above the limit ${MAX_CRYPT_HEADER_BYTES}`;
    throw new ZcowError("QCOW2_CRYPT_HEADER", `Header: ${message}`, {
      data: { structure: "encryption header extension", field: "length", value: length, limit: MAX_CRYPT_HEADER_BYTES },
    });
  }
  return { offset: Number(offset), length: Number(length) };
}

/** The data of the extension for a LUKS area at `offset`. */
export function encodeCryptHeader({ offset, length }: CryptHeader): Uint8Array {
  const data = new Uint8Array(CRYPT_HEADER_BYTES);
  writeU64(viewOf(data), 0, offset);
  writeU64(viewOf(data), 8, length);
  return data;
}

function cryptFault(
  field: string,
  value: number | bigint,
  limit: number,
  message: string,
  stockText: string,
): ZcowError {
  return new ZcowError("QCOW2_CRYPT_HEADER", `Header: ${message}`, {
    data: { structure: "encryption header extension", field, value, limit },
    stockText,
  });
}
