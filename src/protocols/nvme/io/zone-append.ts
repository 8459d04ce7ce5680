/** Zone Append (ZNS, "Zone Append command"). */
import { isPromise, type MaybePromise } from "../../../base/maybe-promise.js";
import type { Command } from "../command.js";
import type { Namespace, NamespaceZones } from "../namespace.js";
import type { IoQueue } from "./io-queue.js";
import { FORCE_UNIT_ACCESS } from "./read-write.js";

/** Dwords 0 and 1 of the completion tell the block that the data got. */
export function zoneAppend(queue: IoQueue, command: Command, namespace: Namespace): void {
  const { device } = namespace.zones as NamespaceZones;
  const data = command.data as Uint8Array;
  namespace.counters.appends += 1;
  namespace.counters.bytesWritten += data.length;
  const options = command.forceUnitAccess ? FORCE_UNIT_ACCESS : undefined;
  let place: MaybePromise<number>;
  try {
    place = device.append(namespace.byteOf(command.startingBlock), data, options);
  } catch (error) {
    queue.fail(command, error, "write");
    return;
  }
  if (!isPromise(place)) {
    succeedAt(queue, command, namespace, place);
    return;
  }
  place.then(
    (offset) => succeedAt(queue, command, namespace, offset),
    (error: unknown) => queue.fail(command, error, "write"),
  );
}

function succeedAt(queue: IoQueue, command: Command, namespace: Namespace, offset: number): void {
  const block = (offset - namespace.deviceOffset) / namespace.blockSize;
  queue.succeed(command, block % 0x1_0000_0000, Math.floor(block / 0x1_0000_0000));
}
