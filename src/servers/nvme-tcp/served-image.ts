import { statSync } from "node:fs";
import { realpath } from "node:fs/promises";
import type { WarningSink } from "../../base/errors.js";
import type { BlockDevice } from "../../block/block-device.js";
import type { PassphraseSource } from "../../block/passphrase.js";
import { type FormatChoice, openImage } from "../../formats/open-image.js";
import type { Qcow2Header } from "../../formats/qcow2/header.js";
import { generationOf } from "../../formats/qcow2/session.js";
import { type BlockSize, type Namespace, namespacesOf } from "../../protocols/nvme/namespace.js";
import { ChangeJournal } from "../../storage/change-journal.js";
import { JournalFile, journalPathBeside, journalPathIn } from "../../storage/journal-file.js";
import { FaultRules } from "../control/fault-rules.js";
import { ImageIdentity, type ImagePart } from "./identity.js";

/** An image that is to be served. */
export interface ImageToServe {
  readonly path: string;
  readonly format: FormatChoice;
  /** A disk that is open already, and is closed with the service. `path` is only its name then. */
  readonly device?: BlockDevice;
  readonly readOnly?: boolean;
  /** Default: as large as everything in the image allows. */
  readonly blockSize?: BlockSize;
  /** 16 bytes; made from the machine and the path of the image when left out. */
  readonly uuid?: Uint8Array;
  /**
   * Where to keep what is acknowledged and not flushed yet, so that it outlives a killed server: `"beside"` the image (the
   * default), in a directory of that path, or nowhere (`false`).
   */
  readonly journal?: "beside" | { readonly directory: string } | false;
  /** Zones keep their host space when they are reset; see `OpenDeviceOptions`. Default false. */
  readonly keepZoneSpace?: boolean;
  readonly onWarning?: WarningSink;
  /** Opens the image when it is encrypted. */
  readonly passphrase?: PassphraseSource | undefined;
}

/** A namespace and what it shows. */
export interface ServedNamespace {
  readonly namespace: Namespace;
  readonly image: ServedImage;
  readonly part: ImagePart;
  readonly faults: FaultRules;
}

/** An image that is open, with its locks held. */
export interface ServedImage {
  /** Without symbolic links: the same for every way to name the file. */
  readonly realPath: string;
  readonly device: BlockDevice;
  readonly identity: ImageIdentity;
  /** To be committed before writes are acknowledged. */
  readonly journal: ChangeJournal | undefined;
}

/** Opens an image and takes its locks. Fails with the codes of `openImage`. */
export async function openServedImage(image: ImageToServe): Promise<ServedImage> {
  const { path, format, readOnly, onWarning, passphrase } = image;
  if (image.device !== undefined) {
    return {
      realPath: path,
      device: image.device,
      identity: new ImageIdentity(path, { uuid: image.uuid }),
      journal: undefined,
    };
  }
  const journal = journalOf(image);
  const device = await openImage(path, {
    format,
    readOnly: readOnly === true,
    // What a guest writes onto its disk must not make the server open other files.
    implicitFiles: "deny",
    passphrase,
    ...(image.keepZoneSpace === true ? { keepZoneSpace: true } : {}),
    ...(journal === undefined ? {} : { journal }),
    ...(onWarning === undefined ? {} : { onWarning }),
  });
  const realPath = await realpath(path);
  const identity = new ImageIdentity(realPath, { uuid: image.uuid, generation: generationOfDisk(device) });
  return { realPath, device, identity, journal };
}

/** Only qcow2 images can tell. */
function generationOfDisk(device: BlockDevice): Uint8Array | undefined {
  const { header } = device as BlockDevice & { readonly header?: Qcow2Header };
  return device.format === "qcow2" && header !== undefined ? generationOf(header) : undefined;
}

function journalOf({ path, readOnly, journal = "beside" }: ImageToServe): ChangeJournal | undefined {
  if (journal === false || readOnly === true) return undefined;
  // Beside a block device is the directory of devices.
  if (journal === "beside" && statSync(path, { throwIfNoEntry: false })?.isFile() !== true) return undefined;
  const file = journal === "beside" ? journalPathBeside(path) : journalPathIn(journal.directory, path);
  return new ChangeJournal(new JournalFile(file));
}

/** The namespaces of an image, numbered from `firstNsid`. Fails as `namespacesOf`. */
export function namespacesOfImage(image: ServedImage, options: ImageToServe, firstNsid: number): ServedNamespace[] {
  const parts: ImagePart[] = [];
  const namespaces = namespacesOf(image.device, {
    firstNsid,
    identity: (part) => {
      parts.push(part);
      return image.identity.namespace(part);
    },
    readOnly: options.readOnly === true,
    ...(options.blockSize === undefined ? {} : { blockSize: options.blockSize }),
  });
  return namespaces.map((namespace, index) => ({
    namespace,
    image,
    part: parts[index] ?? "whole",
    faults: new FaultRules(),
  }));
}
