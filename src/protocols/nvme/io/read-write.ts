/** Read, Write, Write Zeroes and Flush. Nothing here makes a promise when the device answers at once. */
import { isPromise, type MaybePromise, whenAll } from "../../../base/maybe-promise.js";
import type { WriteOptions } from "../../../block/block-device.js";
import type { Command } from "../command.js";
import type { Namespace } from "../namespace.js";
import { statusOfHostRoom } from "../queue-role.js";
import { STATUS } from "../status.js";
import type { IoQueue } from "./io-queue.js";

export const FORCE_UNIT_ACCESS: WriteOptions = { fua: true };

/** DEAC: the blocks may be deallocated. */
const DEALLOCATE = 1 << 25;

export function read(queue: IoQueue, command: Command, namespace: Namespace): void {
  const length = command.blockCount * namespace.blockSize;
  const status = statusOfHostRoom(command, length);
  if (status !== STATUS.success) {
    queue.refuse(command, status);
    return;
  }
  namespace.counters.reads += 1;
  namespace.counters.bytesRead += length;
  const into = command.queue.reply(command, length);
  let wait: MaybePromise<void>;
  try {
    wait = command.forceUnitAccess
      ? flushThenRead(namespace, command.startingBlock, into)
      : namespace.device.read(namespace.byteOf(command.startingBlock), into);
  } catch (error) {
    queue.fail(command, error, "read");
    return;
  }
  if (wait === undefined) command.queue.completeWithReply(command);
  else {
    wait.then(
      () => command.queue.completeWithReply(command),
      (error: unknown) => queue.fail(command, error, "read"),
    );
  }
}

/** What a read with FUA returns must be durable. */
async function flushThenRead(namespace: Namespace, block: number, into: Uint8Array): Promise<void> {
  await namespace.device.flush();
  await namespace.device.read(namespace.byteOf(block), into);
}

export function write(queue: IoQueue, command: Command, namespace: Namespace): void {
  const data = command.data as Uint8Array;
  namespace.counters.writes += 1;
  namespace.counters.bytesWritten += data.length;
  const options = command.forceUnitAccess ? FORCE_UNIT_ACCESS : undefined;
  let wait: MaybePromise<void>;
  try {
    wait = namespace.device.write(namespace.byteOf(command.startingBlock), data, options);
  } catch (error) {
    queue.fail(command, error, "write");
    return;
  }
  endWith(queue, command, wait);
}

export function writeZeroes(queue: IoQueue, command: Command, namespace: Namespace): void {
  namespace.counters.writes += 1;
  const length = command.blockCount * namespace.blockSize;
  const options = { fua: command.forceUnitAccess, unmap: (command.dword12 & DEALLOCATE) !== 0 };
  let wait: MaybePromise<void>;
  try {
    wait = namespace.device.writeZeroes(namespace.byteOf(command.startingBlock), length, options);
  } catch (error) {
    queue.fail(command, error, "write");
    return;
  }
  endWith(queue, command, wait);
}

/** Flushes each device once, however many namespaces show it. */
export function flush(queue: IoQueue, command: Command, namespaces: readonly Namespace[]): void {
  for (const namespace of namespaces) namespace.counters.flushes += 1;
  let wait: MaybePromise<void>;
  try {
    const waits = [...new Set(namespaces.map((namespace) => namespace.device))].map((device) => device.flush());
    const promises = waits.filter((one) => isPromise(one));
    wait = promises.length === 0 ? undefined : whenAll(promises);
  } catch (error) {
    queue.fail(command, error, "write");
    return;
  }
  endWith(queue, command, wait);
}

/** Ends a command with the outcome of its work. */
export function endWith(queue: IoQueue, command: Command, wait: MaybePromise<void>): void {
  if (wait === undefined) {
    queue.succeed(command);
    return;
  }
  wait.then(
    () => queue.succeed(command),
    (error: unknown) => queue.fail(command, error, "write"),
  );
}
