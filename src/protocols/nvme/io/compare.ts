/** Compare and Verify: commands that read and keep nothing. */
import type { MaybePromise } from "../../../base/maybe-promise.js";
import type { Command } from "../command.js";
import type { Namespace } from "../namespace.js";
import { STATUS } from "../status.js";
import type { IoQueue } from "./io-queue.js";

export function compare(queue: IoQueue, command: Command, namespace: Namespace): void {
  const expected = command.data as Uint8Array;
  readInto(queue, command, namespace, expected.length, (found) => {
    if (areEqual(found, expected)) queue.succeed(command);
    else queue.refuse(command, STATUS.compareFailure);
  });
}

export function verify(queue: IoQueue, command: Command, namespace: Namespace): void {
  const length = command.blockCount * namespace.blockSize;
  readInto(queue, command, namespace, length, () => queue.succeed(command));
}

/** Reads the blocks of a command into memory that is given back afterwards. */
function readInto(
  queue: IoQueue,
  command: Command,
  namespace: Namespace,
  length: number,
  then: (found: Uint8Array) => void,
): void {
  const { buffers } = queue.controller.context;
  namespace.counters.otherCommands += 1;
  const found = buffers.take(length);
  command.queue.hold(command, length);
  const end = (finish: () => void): void => {
    finish();
    buffers.give(found);
  };
  let wait: MaybePromise<void>;
  try {
    wait = namespace.device.read(namespace.byteOf(command.startingBlock), found);
  } catch (error) {
    end(() => queue.fail(command, error, "read"));
    return;
  }
  if (wait === undefined) {
    end(() => then(found));
    return;
  }
  wait.then(
    () => end(() => then(found)),
    (error: unknown) => end(() => queue.fail(command, error, "read")),
  );
}

function areEqual(a: Uint8Array, b: Uint8Array): boolean {
  for (let at = 0; at < a.length; at += 1) if (a[at] !== b[at]) return false;
  return true;
}
