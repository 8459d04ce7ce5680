/**
 * `zcow/nvme`: images served as disks over NVMe/TCP, zoned ones as Zoned Namespaces: what `zcow nvme` does, for programs.
 *
 * @module
 */
export type { ChapGroup, ChapHash } from "../protocols/nvme/auth/chap-crypto.js";
export type { TargetLimits } from "../protocols/nvme/limits.js";
export { DEFAULT_LIMITS } from "../protocols/nvme/limits.js";
export type { BlockSize } from "../protocols/nvme/namespace.js";
export type { HostAccess } from "../protocols/nvme/subsystem.js";
export { parseUuid } from "../servers/nvme-tcp/identity.js";
export type { LogFields, LogFormat, Logger } from "../servers/nvme-tcp/logger.js";
export { lineLogger } from "../servers/nvme-tcp/logger.js";
export type { Metric, MetricSample } from "../servers/nvme-tcp/metrics.js";
export { renderMetrics } from "../servers/nvme-tcp/metrics.js";
export type { ChapAccessOptions } from "../servers/nvme-tcp/security/chap-access.js";
export { chapAccess } from "../servers/nvme-tcp/security/chap-access.js";
export type { TlsKey } from "../servers/nvme-tcp/security/tls-key.js";
export { parseTlsKey } from "../servers/nvme-tcp/security/tls-key.js";
export type { KeyDerivation } from "../servers/nvme-tcp/security/tls-psk.js";
export type { ImageToServe, ServedImage, ServedNamespace } from "../servers/nvme-tcp/served-image.js";
export type { ServerLimits } from "../servers/nvme-tcp/server-limits.js";
export { DEFAULT_SERVER_LIMITS } from "../servers/nvme-tcp/server-limits.js";
export type { NvmeServiceOptions, ServedSubsystem, SubsystemToServe } from "../servers/nvme-tcp/service.js";
export { NvmeService } from "../servers/nvme-tcp/service.js";
export { serviceMetrics } from "../servers/nvme-tcp/service-metrics.js";
export type { TlsKeys } from "../servers/nvme-tcp/tls-accepting.js";
