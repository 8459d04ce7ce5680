/** The discovery log page (70h): one record per subsystem and port (NVMe base, "Discovery Log Page"). */
import { putPadded, putText } from "../nqn.js";

/** A place where the target can be reached. */
export interface DiscoveryPort {
  /** IP address as text. Left out: the address that the asking host has reached us at. */
  readonly address?: string;
  /** TCP port. */
  readonly service: number;
  /** PORTID; one per place. */
  readonly portId: number;
  /** TLS 1.3 is required there. */
  readonly tls?: boolean;
}

export interface DiscoveryContents {
  readonly generation: number;
  readonly ports: readonly DiscoveryPort[];
  readonly subsystemNqns: readonly string[];
}

export const RECORD_LENGTH = 1024;

const FIELD = {
  transport: 0,
  family: 1,
  kind: 2,
  requirements: 3,
  portId: 4,
  controllerId: 6,
  adminQueueSize: 8,
  service: 32,
  nqn: 256,
  address: 512,
  security: 768,
} as const;

const TRANSPORT_TCP = 3;
const FAMILY = { ipv4: 1, ipv6: 2 } as const;
const KIND_NVM = 2;
/** TREQ: a secure channel is required, or not; bit 2: SQ flow control may be turned off. */
const REQUIREMENT = { secure: 1, notSecure: 2, flowControlOptional: 4 } as const;
const SECURITY_TLS_1_3 = 2;
const ANY_CONTROLLER = 0xffff;
const ADMIN_QUEUE_SIZE = 32;

/** The whole page. */
export function encodeDiscoveryLog(contents: DiscoveryContents): Uint8Array {
  const records = contents.ports.flatMap((port) => contents.subsystemNqns.map((nqn) => ({ port, nqn })));
  const bytes = new Uint8Array(RECORD_LENGTH * (1 + records.length));
  const view = new DataView(bytes.buffer);
  view.setBigUint64(0, BigInt(contents.generation), true);
  view.setBigUint64(8, BigInt(records.length), true);
  records.forEach((record, index) => {
    putRecord(bytes, RECORD_LENGTH * (index + 1), record.port, record.nqn);
  });
  return bytes;
}

function putRecord(bytes: Uint8Array, at: number, port: DiscoveryPort, nqn: string): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset + at, RECORD_LENGTH);
  const address = port.address ?? "";
  const secure = port.tls === true;
  view.setUint8(FIELD.transport, TRANSPORT_TCP);
  view.setUint8(FIELD.family, address.includes(":") ? FAMILY.ipv6 : FAMILY.ipv4);
  view.setUint8(FIELD.kind, KIND_NVM);
  const channel = secure ? REQUIREMENT.secure : REQUIREMENT.notSecure;
  view.setUint8(FIELD.requirements, channel | REQUIREMENT.flowControlOptional);
  view.setUint16(FIELD.portId, port.portId, true);
  view.setUint16(FIELD.controllerId, ANY_CONTROLLER, true);
  view.setUint16(FIELD.adminQueueSize, ADMIN_QUEUE_SIZE, true);
  putPadded(bytes, at + FIELD.service, 32, String(port.service));
  putText(bytes, at + FIELD.nqn, 223, nqn);
  putPadded(bytes, at + FIELD.address, 256, address);
  view.setUint8(FIELD.security, secure ? SECURITY_TLS_1_3 : 0);
}
