import { writeFileSync } from "node:fs";
import type { AddressInfo } from "node:net";
import { isZcowError, ZcowError } from "../../base/errors.js";
import type { BlockDevice } from "../../block/block-device.js";
import { isZonedDevice } from "../../block/zoned-device.js";
import { openImage } from "../../formats/open-image.js";
import { tracksBitmaps } from "../../formats/qcow2/bitmaps/bitmap-tracking.js";
import { readBitmap } from "../../jobs/bitmap.js";
import type { NbdExportOptions } from "../../protocols/nbd/export.js";
import { DEFAULT_NBD_LIMITS } from "../../protocols/nbd/limits.js";
import { bitmapContext, depthContext, type MetaContext } from "../../protocols/nbd/meta-context.js";
import type { ListenAddress } from "../../servers/nbd/listen-address.js";
import type { HandedOver } from "../../servers/nbd/server.js";
import { NbdService } from "../../servers/nbd/service.js";
import { type Logger, lineLogger } from "../../servers/nvme-tcp/logger.js";
import { commandArguments } from "../command-arguments.js";
import { unknownSecret } from "../common-options.js";
import type { CommandContext } from "../context.js";
import { reportReady, runDetached } from "../detach.js";
import { EXIT_FAILURE, explain, printError, withSubject } from "../failure.js";
import type { CommandManual } from "../manual.js";
import { imageOf, type NamedImage, withSource } from "../named-image.js";
import { listCommand } from "../nbd-list.js";
import {
  diskOptions,
  exportNames,
  handedOverSockets,
  handshakeLimitOption,
  NBD_OPTIONS,
  type NbdDiskOptions,
  nbdAddress,
  sharedOption,
  snapshotOption,
} from "../nbd-options.js";
import { printStockUsage, stockNbdManual } from "../nbd-stand-in.js";
import { tlsServerOptions } from "../nbd-tls.js";
import { logFormatOption } from "../nvme-options.js";
import { openForCommand } from "../open.js";
import { isGiven, lastValue, type ParsedArguments } from "../options.js";
import { stopSignal } from "../stop-signal.js";
import { UsageError } from "../usage-error.js";
import { versionText } from "../version.js";

export const NBD_MANUAL: CommandManual = {
  name: "nbd",
  synopsis: ["[OPTION]... IMAGE...", "-L [OPTION]..."],
  about: [
    "Serves images over NBD until it is told to stop (SIGINT, SIGTERM). Called as qemu-nbd it takes one image and one client, and stops when that has gone.",
  ],
  options: NBD_OPTIONS,
};

const QUIET: Logger = { info: () => undefined, warn: () => undefined, error: () => undefined };
const MILLISECONDS = 1000;

export async function nbdCommand(args: readonly string[], context: CommandContext): Promise<number> {
  if (!context.standIn) return run(args, NBD_MANUAL, context);
  try {
    return await run(args, stockNbdManual(NBD_MANUAL), context);
  } catch (error) {
    if (printStockUsage(error, context)) return EXIT_FAILURE;
    throw error;
  }
}

async function run(args: readonly string[], manual: CommandManual, context: CommandContext): Promise<number> {
  const parsed = commandArguments(args, manual, context, context.standIn ? context.program : undefined);
  if (parsed === undefined) return 0;
  if (isGiven(parsed, "version")) {
    context.output.out(versionText(context));
    return 0;
  }
  if (isGiven(parsed, "list")) return listCommand(parsed, context);
  requireWhatThereIs(parsed, context);
  if (isGiven(parsed, "fork")) return runDetached(process.argv.slice(2));
  return serve(parsed, context);
}

function requireWhatThereIs(parsed: ParsedArguments, context: CommandContext): void {
  const { positionals } = parsed;
  if (isGiven(parsed, "connect") || isGiven(parsed, "disconnect")) {
    throw new UsageError("/dev/nbd devices are attached and detached by nbd-client, not here", false);
  }
  if (isGiven(parsed, "snapshot") && isGiven(parsed, "load-snapshot")) {
    throw new UsageError("-s and -l are mutually exclusive", false);
  }
  if (isGiven(parsed, "selinux-label")) throw new UsageError("SELinux labels are not supported", false);
  if (positionals.length === 0 || (context.standIn && positionals.length > 1)) {
    throw new UsageError("Invalid number of arguments");
  }
}

async function serve(parsed: ParsedArguments, context: CommandContext): Promise<number> {
  const shared = sharedOption(parsed, context.standIn ? 1 : 0);
  const persistent = !context.standIn || isGiven(parsed, "persistent");
  const handshakeSeconds = handshakeLimitOption(parsed);
  const disk = diskOptions(parsed, !context.standIn);
  const tls = tlsServerOptions(parsed);
  const log = logOption(parsed, context);
  const handedOver = handedOverSockets(process.env, process.pid);
  const addresses: ListenAddress[] = handedOver.length > 0 ? handedOver : [nbdAddress(parsed)];
  const stop = stopSignal();
  let idle: (() => void) | undefined;
  const lastClientGone = new Promise<string>((resolve) => {
    idle = () => resolve("the last client has gone");
  });
  const exports = await openExports(parsed, disk, shared !== 1, context);
  const service = await NbdService.start({
    exports,
    addresses,
    log,
    limits: { handshakeMilliseconds: limitOf(handshakeSeconds) },
    serverLimits: { clients: shared },
    ...(tls === undefined ? {} : { tls }),
    onIdle: () => {
      if (!persistent) idle?.();
    },
  }).catch(async (error: unknown) => {
    for (const { device } of exports) await device.close().catch(() => undefined);
    throw error;
  });
  try {
    writePidFile(parsed);
    if (!context.standIn) context.output.out(servingText(service, tls !== undefined));
    reportReady();
    log.info("stopping", { reason: await Promise.race([stop, lastClientGone]) });
  } finally {
    stop.again(() => {
      printError(context, "stopped at once by a second signal: what was not flushed is lost");
      process.exit(EXIT_FAILURE);
    });
    await service.close().catch((error: unknown) => {
      log.error("close-failed", { reason: explain(error, context) });
      throw error;
    });
  }
  return 0;
}

function limitOf(seconds: number | undefined): number {
  return seconds === undefined ? DEFAULT_NBD_LIMITS.handshakeMilliseconds : seconds * MILLISECONDS;
}

/** The stock tool says nothing unless asked. */
function logOption(parsed: ParsedArguments, context: CommandContext): Logger {
  if (context.standIn && !isGiven(parsed, "verbose")) return QUIET;
  return lineLogger(logFormatOption(parsed), (line) => context.output.err(line));
}

/** Opens the images; when one cannot be opened, none stays open. */
async function openExports(
  parsed: ParsedArguments,
  disk: NbdDiskOptions,
  multiConnection: boolean,
  context: CommandContext,
): Promise<NbdExportOptions[]> {
  const names = exportNames(parsed, parsed.positionals);
  const description = lastValue(parsed, "description");
  const exports: NbdExportOptions[] = [];
  try {
    for (const [index, image] of parsed.positionals.entries()) {
      const device = await openServed(image, parsed, disk, context);
      if (isGiven(parsed, "resizable") && (device.readOnly || device.grow === undefined)) {
        await device.close();
        throw cannotGrow(image, device);
      }
      const contexts = await chosenContexts(parsed, image, device, context).catch(async (error: unknown) => {
        await device.close();
        throw error;
      });
      exports.push({
        name: names[index] ?? "",
        device,
        offset: disk.offset,
        discard: disk.discard,
        zeroDetection: disk.zeroDetection,
        writeThrough: disk.cache.writeThrough,
        multiConnection,
        readOnly: isGiven(parsed, "read-only"),
        resizable: isGiven(parsed, "resizable"),
        contexts,
        ...(description === undefined ? {} : { description }),
      });
    }
  } catch (error) {
    for (const { device } of exports) await device.close();
    throw error;
  }
  return exports;
}

function cannotGrow(image: string, { readOnly, format, limits }: BlockDevice): ZcowError {
  const kind = limits.zoned === undefined ? `is ${format}, which` : "is zoned: its size follows from its zones, and";
  const why = readOnly ? "is served for reading only" : `${kind} cannot grow while it is served`;
  return new ZcowError("NOT_SUPPORTED", `--resizable: ${image} ${why}`, { data: { path: image, option: "resizable" } });
}

async function chosenContexts(
  parsed: ParsedArguments,
  image: string,
  device: BlockDevice,
  context: CommandContext,
): Promise<MetaContext[]> {
  const contexts = isGiven(parsed, "allocation-depth") ? [depthContext(device)] : [];
  const name = lastValue(parsed, "bitmap");
  if (name !== undefined) contexts.push(await servedBitmap(parsed, image, device, name, context));
  return contexts;
}

/** A bitmap follows the writes of clients; in an image that nobody writes to it is what the file has. */
async function servedBitmap(
  parsed: ParsedArguments,
  image: string,
  device: BlockDevice,
  name: string,
  context: CommandContext,
): Promise<MetaContext> {
  try {
    const live = tracksBitmaps(device) ? device.dirtyBits(name) : undefined;
    if (live !== undefined) return bitmapContext(name, () => live.ranges());
    const stored = await withSource(servedImage(parsed, image), "read", context, ({ source, format }) =>
      readBitmap(source, { format, name }),
    );
    return bitmapContext(name, () => stored.ranges());
  } catch (error) {
    if (!isZcowError(error)) throw error;
    const missing = ["BITMAP_NOT_FOUND", "NOT_SUPPORTED"].includes(error.code);
    const stockText = missing ? `Bitmap '${name}' is not found` : error.stockText;
    throw new ZcowError(error.code, error.message, {
      data: error.data,
      cause: error,
      ...(stockText === undefined ? {} : { stockText }),
    });
  }
}

function servedImage(parsed: ParsedArguments, image: string): NamedImage {
  const format = lastValue(parsed, "format");
  const isDescribed = isGiven(parsed, "image-opts");
  if (isDescribed && format !== undefined) {
    throw new UsageError("--image-opts and -f are mutually exclusive", false);
  }
  return imageOf(image, { isDescribed, format, forceShare: false, secretOf: unknownSecret });
}

async function openServed(
  image: string,
  parsed: ParsedArguments,
  disk: NbdDiskOptions,
  context: CommandContext,
): Promise<BlockDevice> {
  const named = servedImage(parsed, image);
  const choice = { ...named, cache: disk.cache, snapshot: snapshotOption(parsed) };
  const open = (readOnly: boolean): Promise<BlockDevice> =>
    openForCommand({ ...choice, readOnly }, context).catch((error: unknown) => {
      throw withSubject(`Failed to blk_new_open '${image}'`, error);
    });
  if (isGiven(parsed, "snapshot")) return overlayOver(await open(true), isGiven(parsed, "read-only"));
  const readOnly = isGiven(parsed, "read-only") || named.readOnly || choice.snapshot !== undefined;
  const device = await open(readOnly);
  // Clients that know nothing of zones would write anywhere.
  if (readOnly || !isZonedDevice(device) || isGiven(parsed, "zoned-writes")) return device;
  await device.close();
  return open(true);
}

/** What clients write goes to a file that is gone with the server. The disk is closed when this fails. */
async function overlayOver(base: BlockDevice, readOnly: boolean): Promise<BlockDevice> {
  try {
    const { temporaryOverlay } = await import("../../formats/nodes/temporary-overlay.js");
    return await openImage(await temporaryOverlay(base), { format: "qcow2", readOnly, backing: base });
  } catch (error) {
    await base.close();
    throw error;
  }
}

function writePidFile(parsed: ParsedArguments): void {
  const path = lastValue(parsed, "pid-file");
  if (path === undefined) return;
  try {
    writeFileSync(path, `${process.pid}\n`);
  } catch (cause) {
    const missing = (cause as NodeJS.ErrnoException).code === "ENOENT";
    throw new ZcowError(
      missing ? "NOT_FOUND" : "ACCESS_DENIED",
      `cannot create '${path}': ${(cause as Error).message}`,
      {
        data: { path },
        cause,
        stockText: `Could not create '${path}': ${missing ? "No such file or directory" : "Permission denied"}`,
      },
    );
  }
}

function servingText(service: NbdService, tls: boolean): string {
  const lines: string[] = [];
  for (const address of service.server.addresses) {
    for (const { name, size, readOnly } of service.exports) {
      const uri = exportUri(address, name, tls);
      lines.push(`serving ${uri} (${size} bytes${readOnly ? ", read-only" : ""})\n`);
    }
  }
  return lines.join("");
}

function exportUri(address: AddressInfo | string | HandedOver, name: string, tls: boolean): string {
  const scheme = tls ? "nbds" : "nbd";
  const encoded = encodeURIComponent(name);
  if (typeof address === "string")
    return `${scheme}+unix:///${encoded}?socket=${encodeURIComponent(address).replaceAll("%2F", "/")}`;
  if ("descriptor" in address) return `'${name}' at descriptor ${address.descriptor}`;
  const host = address.family === "IPv6" ? `[${address.address}]` : address.address;
  return `${scheme}://${host}:${address.port}/${encoded}`;
}
