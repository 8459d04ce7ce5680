/**
 * Steps of the work on an image that faults and breakpoints can be tied to, by the names that the stock tools have for them. Those
 * that never occur here, because the work is done in another way, are known all the same, so that a configuration is understood.
 */
export const DEBUG_EVENTS = [
  "l1_update",
  "l1_grow.alloc_table",
  "l1_grow.write_table",
  "l1_grow.activate_table",
  "l2_load",
  "l2_update",
  "l2_update_compressed",
  "l2_alloc.cow_read",
  "l2_alloc.write",
  "read_aio",
  "read_backing_aio",
  "read_compressed",
  "write_aio",
  "write_compressed",
  "vmstate_load",
  "vmstate_save",
  "cow_read",
  "cow_write",
  "reftable_load",
  "reftable_grow",
  "reftable_update",
  "refblock_load",
  "refblock_update",
  "refblock_update_part",
  "refblock_alloc",
  "refblock_alloc.hookup",
  "refblock_alloc.write",
  "refblock_alloc.write_blocks",
  "refblock_alloc.write_table",
  "refblock_alloc.switch_table",
  "cluster_alloc",
  "cluster_alloc_bytes",
  "cluster_free",
  "flush_to_os",
  "flush_to_disk",
  "pwritev_rmw.head",
  "pwritev_rmw.after_head",
  "pwritev_rmw.tail",
  "pwritev_rmw.after_tail",
  "pwritev",
  "pwritev_zero",
  "pwritev_done",
  "empty_image_prepare",
  "l1_shrink_write_table",
  "l1_shrink_free_l2_clusters",
  "cor_write",
  "cluster_alloc_space",
  "none",
] as const;

export type DebugEvent = (typeof DEBUG_EVENTS)[number];

/** The event called `name`, or undefined. */
export function debugEvent(name: string): DebugEvent | undefined {
  return DEBUG_EVENTS.find((event) => event === name);
}

/** How a storage that injects faults is told of events, and steered. */
export interface StorageDebug {
  /** Called right before the call of the storage that the event stands for. */
  event(event: DebugEvent): void;
  /** The next call behind `event` waits for {@link resume}. */
  breakAt(event: DebugEvent, tag: string): void;
  /** Lets the calls that wait under `tag` go on; false when there are none. */
  resume(tag: string): boolean;
  /** Forgets the breakpoints of `tag` and lets its calls go on; false when no such breakpoint is to come. */
  removeBreak(tag: string): boolean;
  /** Resolves when a call waits under `tag`. */
  waitFor(tag: string): Promise<void>;
}
