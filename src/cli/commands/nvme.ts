import type { SecretLookup } from "../../formats/qcow2/create-options-parse.js";
import { ControlServer } from "../../servers/control/control-server.js";
import { type Logger, lineLogger } from "../../servers/nvme-tcp/logger.js";
import { renderMetrics } from "../../servers/nvme-tcp/metrics.js";
import { MetricsServer } from "../../servers/nvme-tcp/metrics-server.js";
import type { ImageToServe } from "../../servers/nvme-tcp/served-image.js";
import { NvmeService, type SubsystemToServe } from "../../servers/nvme-tcp/service.js";
import { serviceControl } from "../../servers/nvme-tcp/service-control.js";
import { serviceMetrics } from "../../servers/nvme-tcp/service-metrics.js";
import { WRITE_BACK } from "../cache-mode.js";
import { commandArguments } from "../command-arguments.js";
import { givenSecrets } from "../common-options.js";
import type { CommandContext } from "../context.js";
import { EXIT_FAILURE, explain, printError } from "../failure.js";
import type { CommandManual } from "../manual.js";
import { namedImage } from "../named-image.js";
import {
  accessOptions,
  addressOption,
  blockSizeOption,
  inTermsOfOptions,
  journalOption,
  limitOptions,
  listenOption,
  logFormatOption,
  NVME_OPTIONS,
  tlsOptions,
  uuidOptions,
} from "../nvme-options.js";
import { servingText, warnIfOpen } from "../nvme-text.js";
import { formatChoice, printWarning } from "../open.js";
import { isGiven, lastValue, type ParsedArguments } from "../options.js";
import { stopSignal } from "../stop-signal.js";
import { UsageError } from "../usage-error.js";

export const NVME_MANUAL: CommandManual = {
  name: "nvme",
  synopsis: ["[OPTION]... IMAGE..."],
  about: [
    "Serves images as disks over NVMe/TCP until it is told to stop (SIGINT, SIGTERM). A zoned image becomes a zoned disk (ZNS); its conventional zones, if any, a second namespace before it. The command to attach them is printed.",
  ],
  options: NVME_OPTIONS,
};

const DEFAULT_METRICS_PORT = 9420;

export async function nvmeCommand(args: readonly string[], context: CommandContext): Promise<number> {
  const parsed = commandArguments(args, NVME_MANUAL, context);
  if (parsed === undefined) return 0;
  if (parsed.positionals.length === 0) throw new UsageError("nvme: Expecting at least one image file name");
  const log = lineLogger(logFormatOption(parsed), (line) => context.output.err(line));
  const { host, port } = listenOption(parsed);
  const tls = tlsOptions(parsed);
  const subsystems = subsystemsOf(parsed, await givenSecrets(parsed), context);
  const stop = stopSignal();
  const service = await NvmeService.start({
    subsystems,
    host,
    port,
    log,
    limits: limitOptions(parsed),
    ...(tls === undefined ? {} : { tls }),
  }).catch((error: unknown) => {
    throw inTermsOfOptions(error);
  });
  try {
    const close = await attendants(parsed, service, log);
    warnIfOpen(service, subsystems, log);
    context.output.out(servingText(service, subsystems));
    log.info("stopping", { signal: await stop });
    close();
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
  log.info("stopped");
  return 0;
}

function subsystemsOf(parsed: ParsedArguments, secretOf: SecretLookup, context: CommandContext): SubsystemToServe[] {
  const nqn = lastValue(parsed, "nqn");
  const images = imagesOf(parsed, secretOf, context);
  const common = {
    hosts: accessOptions(parsed),
    shared: isGiven(parsed, "shared"),
    multipath: isGiven(parsed, "multipath"),
  };
  if (!isGiven(parsed, "separate")) return [{ ...common, images, ...(nqn === undefined ? {} : { nqn }) }];
  if (nqn === undefined) return images.map((image) => ({ ...common, images: [image] }));
  return images.map((image, index) => ({ ...common, images: [image], nqn: `${nqn}:${index + 1}` }));
}

function imagesOf(parsed: ParsedArguments, secretOf: SecretLookup, context: CommandContext): ImageToServe[] {
  const blockSize = blockSizeOption(parsed);
  const readOnly = isGiven(parsed, "read-only");
  const keepZoneSpace = isGiven(parsed, "keep-space");
  const uuids = uuidOptions(parsed);
  const journal = journalOption(parsed);
  return parsed.positionals.map((name, index) => {
    const { path, options, format, passphrase } = namedImage({ ...parsed, positionals: [name] }, secretOf);
    if (options !== undefined)
      throw new UsageError(`image options '${name}' say more than a file and its format`, false);
    const uuid = uuids[index];
    const choice = { path, format, readOnly, forceShare: false, cache: WRITE_BACK };
    return {
      path,
      format: formatChoice(format),
      readOnly,
      keepZoneSpace,
      journal,
      passphrase,
      onWarning: (warning) => printWarning(warning, choice, context),
      ...(blockSize === undefined ? {} : { blockSize }),
      ...(uuid === undefined ? {} : { uuid }),
    };
  });
}

/** Starts what goes with the service; the result ends it. */
async function attendants(parsed: ParsedArguments, service: NvmeService, log: Logger): Promise<() => void> {
  const controlPath = lastValue(parsed, "control");
  const metricsAt = lastValue(parsed, "metrics");
  const control =
    controlPath === undefined ? undefined : await ControlServer.listen(controlPath, serviceControl(service, log));
  let metrics: MetricsServer | undefined;
  try {
    if (metricsAt !== undefined) {
      const { host, port } = addressOption("metrics", metricsAt, DEFAULT_METRICS_PORT);
      metrics = await MetricsServer.listen(host, port, () => renderMetrics(serviceMetrics(service)));
      log.info("metrics", { host, port: metrics.port });
    }
  } catch (error) {
    control?.close();
    throw error;
  }
  return () => {
    control?.close();
    metrics?.close();
  };
}
