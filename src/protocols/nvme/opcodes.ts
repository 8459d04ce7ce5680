/** Command opcodes (NVMe base, NVM and ZNS command sets). The low two bits tell the direction of data. */

export const ADMIN = {
  getLogPage: 0x02,
  identify: 0x06,
  abort: 0x08,
  setFeatures: 0x09,
  getFeatures: 0x0a,
  asyncEventRequest: 0x0c,
  keepAlive: 0x18,
} as const;

export const FABRICS = 0x7f;

/** FCTYPE of a Fabrics command. */
export const FABRICS_TYPE = {
  propertySet: 0x00,
  connect: 0x01,
  propertyGet: 0x04,
  authenticationSend: 0x05,
  authenticationReceive: 0x06,
  disconnect: 0x08,
} as const;

export const IO = {
  flush: 0x00,
  write: 0x01,
  read: 0x02,
  compare: 0x05,
  writeZeroes: 0x08,
  datasetManagement: 0x09,
  verify: 0x0c,
  copy: 0x19,
  zoneManagementSend: 0x79,
  zoneManagementReceive: 0x7a,
  zoneAppend: 0x7d,
} as const;

/** Command set identifiers (CSI). */
export const COMMAND_SET = { nvm: 0, zns: 2 } as const;

/** NSID that stands for all namespaces. */
export const ALL_NAMESPACES = 0xffff_ffff;
