import { ZcowError } from "../../base/errors.js";
import type { BlockDevice } from "../../block/block-device.js";
import { copyOnRead } from "../../block/copy-on-read.js";
import { NodeOptions } from "../../block/node-options.js";
import type { PassphraseSource } from "../../block/passphrase.js";
import { type OpenedNode, openParts } from "../../formats/nodes/open-node.js";
import { type NodeAccess } from "../../formats/nodes/storage-node.js";
import { openImage } from "../../formats/open-image.js";
import type { Preallocation } from "../../formats/qcow2/create-layout.js";
import type { SecretLookup } from "../../formats/qcow2/create-options-parse.js";
import { formatDriver } from "../../formats/registry.js";
import { DEEP_QUEUE_THREADS, requestThreadPool } from "../../host/thread-pool.js";
import { describeImage, type ImageInfo } from "../../jobs/info.js";
import { resizeImage } from "../../jobs/resize.js";
import { borrowedStorage } from "../../storage/borrowed-storage.js";
import type { StorageDebug } from "../../storage/debug/events.js";
import type { Storage } from "../../storage/storage.js";
import type { CacheMode } from "../cache-mode.js";
import type { CommandContext } from "../context.js";
import { formatChoice, printWarning } from "../open.js";

/** Which disk the exerciser works on, and how. */
export interface IoChoice {
  /** The file as it was named; undefined when the options say it. */
  readonly path: string | undefined;
  /** Driver options, by name. */
  readonly options: readonly (readonly [name: string, value: string])[];
  readonly readOnly: boolean;
  readonly forceShare: boolean;
  readonly cache: CacheMode;
  /** Writes go to a temporary image that is thrown away. */
  readonly temporary: boolean;
  /** What is read from behind the image is kept in it. */
  readonly copyOnRead: boolean;
  /** Discards are passed on. */
  readonly discard: boolean;
  /** Zeros that are written become zero requests, with their space given back or without. */
  readonly zeroDetection: "off" | "on" | "unmap";
}

/** How a disk is opened when nothing is said. */
export const PLAIN_CHOICE: Omit<IoChoice, "path" | "options" | "cache"> = {
  readOnly: false,
  forceShare: false,
  temporary: false,
  copyOnRead: false,
  discard: true,
  zeroDetection: "off",
};

/** What opening and reopening need besides. */
export interface IoSurroundings {
  readonly context: CommandContext;
  readonly secretOf: SecretLookup | undefined;
}

/** The disk that the exerciser works on, with what it lies on: its size can be changed while it is in use. */
export class IoImage {
  readonly choice: IoChoice;
  device: BlockDevice;
  readonly #node: OpenedNode;
  /** The temporary image over it. */
  readonly #overlay: Storage | undefined;

  private constructor(choice: IoChoice, node: OpenedNode, overlay: Storage | undefined, device: BlockDevice) {
    this.choice = choice;
    this.#node = node;
    this.#overlay = overlay;
    this.device = device;
  }

  static async open(choice: IoChoice, surroundings: IoSurroundings): Promise<IoImage> {
    // Direct transfers wait for the disk in the thread pool; nothing has used it yet.
    if (choice.cache.direct) requestThreadPool(DEEP_QUEUE_THREADS);
    const named = choice.path === undefined ? [] : [["filename", choice.path] as const];
    const node = await openParts(new NodeOptions([...choice.options, ...named]), accessOf(choice, surroundings));
    let overlay: Storage | undefined;
    try {
      if (choice.temporary) overlay = await overlayOver(node);
      return new IoImage(choice, node, overlay, await openDisk(choice, node, overlay));
    } catch (error) {
      await overlay?.close();
      await node.storage.close();
      throw error;
    }
  }

  /** A device that is open already, for tests. */
  static of(device: BlockDevice, choice: IoChoice, storage: Storage): IoImage {
    const node = { storage, driver: device.format, passphrase: undefined, openDevice: () => Promise.resolve(device) };
    return new IoImage(choice, node, undefined, device);
  }

  /** The driver at the top when it is no format: then the bytes of a place are the disk. */
  get protocol(): string | undefined {
    const { driver } = this.#node;
    if (this.#overlay !== undefined) return undefined;
    return driver === undefined || driver === this.device.format ? undefined : driver;
  }

  /** False when all that is written is forgotten. */
  get holdsData(): boolean {
    return this.#overlay !== undefined || !/^null-(co|aio):/.test(this.#node.storage.name);
  }

  /** Where faults are injected and breakpoints set; undefined on disks without. */
  get debug(): StorageDebug | undefined {
    return this.#node.storage.debug;
  }

  describe(): Promise<ImageInfo> {
    return describeImage(this.#overlay ?? this.#node.storage, { format: formatChoice(this.device.format) });
  }

  /** Changes the size of the disk; the locks on its files stay. The disk is open afterwards, whether that worked or not. */
  async resize(size: number, preallocation: Preallocation): Promise<void> {
    const format = formatDriver(this.device.format).name === "qcow2" ? "qcow2" : "raw";
    if (preallocation !== "off") {
      if (size === this.device.size) return;
      if (size < this.device.size) throw preallocationOfLess(format, size, this.device.size);
    }
    await this.device.close();
    try {
      const storage = this.#overlay ?? this.#node.storage;
      await resizeImage(storage, { format, size, shrink: true, preallocation, implicitFiles: "probe" });
    } finally {
      this.device = await openDisk(this.choice, this.#node, this.#overlay);
    }
  }

  /** Reads from the state of a virtual machine. Fails with `NOT_SUPPORTED` where there is no place for one. */
  async readVmState(at: number, into: Uint8Array): Promise<void> {
    this.#requireVmState();
    const { readVmState } = await import("../../formats/qcow2/vm-state.js");
    await readVmState(this.#overlay ?? this.#node.storage, at, into, this.#passphrase);
  }

  /** Writes to the state of a virtual machine. The disk is open afterwards, whether that worked or not. */
  async writeVmState(at: number, from: Uint8Array): Promise<void> {
    this.#requireVmState();
    const { writeVmState } = await import("../../formats/qcow2/vm-state.js");
    await this.device.close();
    try {
      await writeVmState(this.#overlay ?? this.#node.storage, at, from, this.#passphrase);
    } finally {
      this.device = await openDisk(this.choice, this.#node, this.#overlay);
    }
  }

  get #passphrase(): PassphraseSource | undefined {
    return this.#overlay === undefined ? this.#node.passphrase : undefined;
  }

  #requireVmState(): void {
    const { format, name } = this.device;
    if (format === "qcow2") return;
    throw new ZcowError("NOT_SUPPORTED", `${name} is ${format}, which has no place for the state of a machine`, {
      data: { path: name, value: format },
    });
  }

  async close(): Promise<void> {
    try {
      await this.device.close();
    } finally {
      await this.#overlay?.close();
      await this.#node.storage.close();
    }
  }
}

function accessOf(choice: IoChoice, { context, secretOf }: IoSurroundings): NodeAccess {
  const path = choice.path ?? "";
  return {
    writable: !choice.readOnly && !choice.temporary,
    forceShare: choice.forceShare,
    direct: choice.cache.direct,
    // Who names an image on the command line means what belongs to it, too, as with the stock tools.
    implicitFiles: "probe",
    onWarning: (warning) => printWarning(warning, { path, readOnly: choice.readOnly }, context),
    onBreakpoint: (what, tag) =>
      context.output.out(`blkdebug: ${what === "suspended" ? "Suspended" : "Resuming"} request '${tag}'\n`),
    secretOf,
  };
}

async function overlayOver(node: OpenedNode): Promise<Storage> {
  const { temporaryOverlay } = await import("../../formats/nodes/temporary-overlay.js");
  const base = await node.openDevice();
  try {
    return await temporaryOverlay(base);
  } finally {
    await base.close();
  }
}

async function openDisk(choice: IoChoice, node: OpenedNode, overlay: Storage | undefined): Promise<BlockDevice> {
  const disk = await node.openDevice();
  try {
    const top =
      overlay === undefined
        ? disk
        : await openImage(borrowedStorage(overlay), { format: "qcow2", readOnly: choice.readOnly, backing: disk });
    return choice.copyOnRead ? copyOnRead(top) : top;
  } catch (error) {
    await disk.close();
    throw error;
  }
}

/** In the words that the stock tool has for each format here, and not for `resize`. */
function preallocationOfLess(format: "qcow2" | "raw", value: number, limit: number): ZcowError {
  const stockText =
    format === "qcow2"
      ? "Preallocation can't be used for shrinking an image"
      : "Cannot use preallocation for shrinking files";
  return new ZcowError("INVALID_ARGUMENT", `Preallocation is for larger disks; ${value} is below ${limit} bytes`, {
    data: { option: "preallocation", value, limit },
    stockText,
  });
}
