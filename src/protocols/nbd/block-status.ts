/** Queries of block status. */
import { STATUS_EXTENTS } from "./limits.js";
import type { MetaContext, StatusExtent } from "./meta-context.js";
import type { Replies, RequestId } from "./replies.js";

export interface StatusQuery {
  readonly id: RequestId;
  /** Where the range starts on the device, bytes. */
  readonly start: number;
  readonly length: number;
  /** One extent per context is enough. */
  readonly only: boolean;
}

/** Lengths of extents in headers that are not extended. A multiple of any alignment. */
const LARGEST_NARROW_EXTENT = 0xffff_f000;

/** Sends a chunk per context. `stopped`: nobody waits for them any more. */
export async function answerBlockStatus(
  replies: Replies,
  contexts: readonly MetaContext[],
  query: StatusQuery,
  stopped: () => boolean,
): Promise<void> {
  const found: StatusExtent[][] = [];
  // An error in a later context must not follow what looks like an answer.
  for (const context of contexts) found.push(await statusOf(context, query, replies.form === "extended"));
  if (stopped()) return;
  for (const [id, extents] of found.entries()) replies.blockStatus(query.id, id, extents, id === found.length - 1);
}

async function statusOf(context: MetaContext, query: StatusQuery, wide: boolean): Promise<StatusExtent[]> {
  const largest = wide ? Number.MAX_SAFE_INTEGER : LARGEST_NARROW_EXTENT;
  const most = query.only ? 1 : STATUS_EXTENTS;
  const extents: { length: number; readonly status: number }[] = [];
  for await (const { length, status } of context.extents(query.start, query.length)) {
    const last = extents.at(-1);
    if (last !== undefined && last.status === status && last.length + length <= largest) {
      last.length += length;
      continue;
    }
    if (extents.length === most) break;
    extents.push({ length: Math.min(length, largest), status });
    // The client asks again from where the answer ends.
    if (length > largest) break;
  }
  return extents;
}
