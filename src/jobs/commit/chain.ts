import { ZcowError } from "../../base/errors.js";
import type { BlockDevice } from "../../block/block-device.js";
import type { OpenDeviceOptions } from "../../block/format-driver.js";
import { parseReference, resolveReference } from "../../block/image-reference.js";
import { permitImplicitFile } from "../../block/open-policy.js";
import { MAX_BACKING_DEPTH, refuseProtocol } from "../../formats/backing-image.js";
import { openImage } from "../../formats/open-image.js";
import { readHeader } from "../../formats/qcow2/header-read.js";
import { FORMATS, type FormatName, formatDriver, probeFormat } from "../../formats/registry.js";
import { fileIdentity } from "../../storage/file-identity.js";
import { openStorage } from "../../storage/open-storage.js";
import type { Storage } from "../../storage/storage.js";

/** One image of a chain, nearest first. */
export interface ChainLink {
  /** As its overlay names it. */
  readonly name: string;
  readonly path: string;
  readonly format: FormatName;
}

type Surroundings = Pick<OpenDeviceOptions, "implicitFiles" | "openFile" | "onWarning">;

/**
 * What is behind the image in `top`, as far down as the image called `base`: by the name that its overlay has for it, by that
 * name seen from the folder of the overlay, or by any path that leads to the same file. Without `base`, the first one.
 *
 * Only headers are read. Fails with `NO_BACKING_FILE`, `BASE_NOT_FOUND`, and as opening a chain does.
 */
export async function linksTo(
  top: Storage,
  base: string | undefined,
  surroundings: Surroundings,
): Promise<readonly ChainLink[]> {
  const links: ChainLink[] = [];
  const seen = new Set([fileIdentity(top.name)]);
  let overlay = { storage: top, format: (await probeFormat(top)).name };
  try {
    for (;;) {
      const link = await nextLink(overlay.storage, overlay.format, surroundings);
      if (link === undefined) throw noBase(top, base);
      refuseEndless(top, link, seen);
      seen.add(fileIdentity(link.path));
      links.push(link);
      if (base === undefined || isCalled(link, base, overlay.storage.name)) return links;
      const storage = await openLink(link.path, false, surroundings);
      if (overlay.storage !== top) await overlay.storage.close();
      overlay = { storage, format: link.format };
    }
  } finally {
    if (overlay.storage !== top) await overlay.storage.close();
  }
}

/** Opens the file of a link. */
export function openLink(path: string, writable: boolean, { openFile, onWarning }: Surroundings): Promise<Storage> {
  if (openFile !== undefined) return openFile(path, { writable });
  return openStorage(path, { writable, ...(onWarning === undefined ? {} : { onWarning }) });
}

async function nextLink(image: Storage, format: string, surroundings: Surroundings): Promise<ChainLink | undefined> {
  if (format !== "qcow2") return undefined;
  const { backingFileName: name, backingFormat: recorded } = await readHeader(image);
  if (name === undefined) return undefined;
  const file = { role: "backing file", name, format: recorded, image: image.name } as const;
  const mayGuess = await permitImplicitFile(surroundings.implicitFiles ?? "deny", file);
  const reference = parseReference(resolveReference(name, image.name), recorded);
  refuseProtocol(reference);
  if (reference.format !== undefined) {
    return { name, path: reference.path, format: formatDriver(reference.format).name as FormatName };
  }
  if (!mayGuess) {
    throw new ZcowError("FORMAT_UNKNOWN", `${image.name} does not record the format of its backing file '${name}'`, {
      data: { path: image.name, structure: "backing file", value: name },
    });
  }
  const storage = await openLink(reference.path, false, surroundings);
  try {
    return { name, path: reference.path, format: (await probeFormat(storage)).name as FormatName };
  } finally {
    await storage.close();
  }
}

function isCalled(link: ChainLink, base: string, overlay: string): boolean {
  if (link.name === base || link.path === base) return true;
  const wanted = fileIdentity(link.path);
  return fileIdentity(resolveReference(base, overlay)) === wanted || fileIdentity(base) === wanted;
}

function refuseEndless(top: Storage, link: ChainLink, seen: ReadonlySet<string>): void {
  const data = { path: top.name, structure: "backing file", value: link.name };
  if (seen.has(fileIdentity(link.path))) {
    throw new ZcowError("BACKING_LOOP", `The chain of ${top.name} leads to '${link.path}' twice`, {
      data,
      stockText: `Backing file '${link.path}' creates an infinite loop.`,
    });
  }
  if (seen.size <= MAX_BACKING_DEPTH) return;
  throw new ZcowError(
    "BACKING_TOO_DEEP",
    `The chain of ${top.name} is longer than ${MAX_BACKING_DEPTH} backing files`,
    {
      data: { ...data, limit: MAX_BACKING_DEPTH },
    },
  );
}

/** The refusal of a chain that has no such base. */
export function noBase(top: Storage, base: string | undefined): ZcowError {
  if (base === undefined) {
    return new ZcowError("NO_BACKING_FILE", `${top.name} has no backing file`, {
      data: { path: top.name },
      stockText: "Image does not have a backing file",
    });
  }
  return new ZcowError("BASE_NOT_FOUND", `No image behind ${top.name} is called '${base}'`, {
    data: { path: top.name, value: base },
    stockText: `Did not find '${base}' in the backing chain of '${top.name}'`,
  });
}

/**
 * Opens the images of `links` between the base and the top for reading, each over the one below it; the lowest over `base`. The
 * device owns them all. `base` stays open when opening fails.
 */
export async function openOver(
  links: readonly ChainLink[],
  base: BlockDevice,
  surroundings: Surroundings,
  passphrase: OpenDeviceOptions["passphrase"],
): Promise<BlockDevice> {
  let backing = base;
  try {
    for (const { path, format } of links.slice(0, -1).toReversed()) {
      const storage = await openLink(path, false, surroundings);
      try {
        backing = await openImage(storage, {
          format,
          readOnly: true,
          formats: FORMATS,
          passphrase,
          backing,
          ...surroundings,
        });
      } catch (error) {
        await storage.close();
        throw error;
      }
    }
    return backing;
  } catch (error) {
    if (backing !== base) await backing.close();
    throw error;
  }
}
