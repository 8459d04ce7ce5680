/**
 * Names that hosts find their disks by. They must stay the same from one start of the server to the next, and differ
 * between any two disks that one host could see.
 *
 * A qcow2 image carries no identity of its own, and a copy of one is another disk. So the names come from where the
 * image lies: a hash over the identity of this machine and the real path of the file. Moving the image, or the image
 * directory to another machine, gives it new names; a UUID given by the administrator overrides that.
 */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { hostname } from "node:os";
import { ZcowError } from "../../base/errors.js";
import type { NamespaceIdentity } from "../../protocols/nvme/namespace.js";

/** Which part of an image a namespace shows. */
export type ImagePart = "whole" | "conventional" | "sequential";

const MACHINE_ID_FILES = ["/etc/machine-id", "/var/lib/dbus/machine-id"];
const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;

/** What tells this machine from others: its machine id, else its name. */
export function machineIdentity(): string {
  for (const path of MACHINE_ID_FILES) {
    try {
      const id = readFileSync(path, "utf8").trim();
      if (/^[0-9a-f]{32}$/.test(id)) return id;
    } catch {
      // Not every system has it.
    }
  }
  return hostname();
}

/** The 16 bytes of a UUID text; fails with `INVALID_ARGUMENT`. */
export function parseUuid(text: string): Uint8Array {
  if (UUID.test(text)) return Uint8Array.from(Buffer.from(text.replaceAll("-", ""), "hex"));
  throw new ZcowError("INVALID_ARGUMENT", `'${text}' is not a UUID`, { data: { field: "uuid", value: text } });
}

export function uuidText(uuid: Uint8Array): string {
  const hex = Buffer.from(uuid).toString("hex");
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
}

/** The identity of an image, from which the names of its parts follow. */
export class ImageIdentity {
  readonly #seed: string;
  readonly #given: Uint8Array | undefined;
  readonly #generation: string;

  /**
   * `uuid`: given by the administrator; becomes the UUID of the first namespace as it is. `generation`: of the image, when
   * acknowledged writes were lost. It changes the NGUID alone: names on the host follow the UUID, but a host that was
   * connected all the time finds another disk, and does not go on as if nothing had happened.
   */
  constructor(
    realPath: string,
    {
      uuid,
      generation,
      machine = machineIdentity(),
    }: { uuid?: Uint8Array | undefined; generation?: Uint8Array | undefined; machine?: string } = {},
  ) {
    this.#given = uuid;
    this.#generation = generation === undefined ? "" : ` ${Buffer.from(generation).toString("hex")}`;
    this.#seed = uuid === undefined ? `path\0${machine}\0${realPath}` : `uuid\0${uuidText(uuid)}`;
  }

  namespace(part: ImagePart): NamespaceIdentity {
    // The sequential zones are the image; the conventional ones are what is split off.
    const uuid =
      this.#given !== undefined && part !== "conventional" ? this.#given : uuidFrom(this.#hash(`uuid ${part}`));
    return { uuid, nguid: nguidFrom(this.#hash(`nguid ${part}${this.#generation}`)) };
  }

  /** The name of a subsystem that is made for this image. */
  subsystemNqn(): string {
    return `nqn.2014-08.org.nvmexpress:uuid:${uuidText(uuidFrom(this.#hash("subsystem")))}`;
  }

  /** 20 characters. */
  serial(): string {
    return Buffer.from(this.#hash("serial")).toString("hex").slice(0, 20).toUpperCase();
  }

  #hash(purpose: string): Uint8Array {
    return createHash("sha256").update(`zcow nvme\0${purpose}\0${this.#seed}`).digest();
  }
}

/** Version 8 (RFC 9562, section 5.8): bits of our own making. */
function uuidFrom(hash: Uint8Array): Uint8Array {
  const uuid = Uint8Array.from(hash.subarray(0, 16));
  uuid[6] = ((uuid[6] ?? 0) & 0x0f) | 0x80;
  uuid[8] = ((uuid[8] ?? 0) & 0x3f) | 0x80;
  return uuid;
}

/** Bytes 8 to 10 of an NGUID are a company's number; the second bit of the first says that it is nobody's. */
function nguidFrom(hash: Uint8Array): Uint8Array {
  const nguid = Uint8Array.from(hash.subarray(0, 16));
  nguid[8] = ((nguid[8] ?? 0) & 0xfc) | 0x02;
  return nguid;
}
