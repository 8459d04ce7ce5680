import type { ChapGroup, ChapHash } from "../../../protocols/nvme/auth/chap-crypto.js";
import { parseChapSecret } from "../../../protocols/nvme/auth/chap-secret.js";
import { DhHmacChap } from "../../../protocols/nvme/auth/dh-hmac-chap.js";
import type { HostAccess } from "../../../protocols/nvme/subsystem.js";
import { nodeChapCrypto } from "./node-chap-crypto.js";

/** What a DH-HMAC-CHAP exchange may use beside the host's secret. */
export interface ChapAccessOptions {
  /** Secret (`DHHC-1:…`) that proves this server to hosts that ask. Left out: a host that asks is refused. */
  readonly controllerSecret?: string;
  /** Hashes that may be used, the preferred first. Default: all, the longest first. */
  readonly hashes?: readonly ChapHash[];
  /** Groups that may be used, the preferred first. Default: all, the smallest that keeps past sessions secret first, NULL last. */
  readonly groups?: readonly ChapGroup[];
}

/**
 * A host that has to prove that it knows `secret`, in the form that `nvme gen-dhchap-key` prints (`DHHC-1:…`), on every queue.
 * Throws `INVALID_ARGUMENT` for a text that is no secret; the message does not repeat it.
 */
export function chapAccess(secret: string, { controllerSecret, ...algorithms }: ChapAccessOptions = {}): HostAccess {
  const options = {
    crypto: nodeChapCrypto,
    hostSecret: parseChapSecret(secret),
    ...(controllerSecret === undefined ? {} : { controllerSecret: parseChapSecret(controllerSecret) }),
    ...algorithms,
  };
  return { authenticate: (names) => new DhHmacChap({ ...options, ...names }) };
}
