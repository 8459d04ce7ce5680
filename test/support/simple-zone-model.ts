/**
 * A zoned disk in the most naive way: an oracle for the real model, sharing no code with it.
 *
 * Every question is answered by looking at all zones and all writes anew. Nothing is counted, cached or linked.
 * Operations return "ok" or the code of the refusal.
 */
export type SimpleState =
  | "not-wp"
  | "empty"
  | "implicitly-open"
  | "explicitly-open"
  | "closed"
  | "full"
  | "read-only"
  | "offline";

export interface SimpleWrite {
  offset: number;
  length: number;
  /** What its caller knows. */
  answer: "none" | "acknowledged" | "failed" | "aborted";
  io: "running" | "good" | "bad";
}

interface SimpleZone {
  start: number;
  size: number;
  capacity: number;
  conventional: boolean;
  pointer: number;
  state: SimpleState;
  /** A clock reading. */
  lastWrite: number;
  writes: SimpleWrite[];
}

export interface SimpleOptions {
  diskSize: number;
  zoneSize: number;
  capacity: number;
  conventional: number;
  maxOpen: number;
  maxActive: number;
  maxAppend: number;
}

export class SimpleZoneModel {
  zones: SimpleZone[] = [];
  clock = 0;
  readonly options: SimpleOptions;

  constructor(options: SimpleOptions) {
    this.options = options;
    for (let start = 0; start < options.diskSize; start += options.zoneSize) {
      const size = Math.min(options.zoneSize, options.diskSize - start);
      const conventional = this.zones.length < options.conventional;
      this.zones.push({
        start,
        size,
        capacity: Math.min(options.capacity, size),
        conventional,
        pointer: start,
        state: conventional ? "not-wp" : "empty",
        lastWrite: 0,
        writes: [],
      });
    }
  }

  zoneAt(offset: number): SimpleZone {
    const zone = this.zones.find((z) => offset >= z.start && offset < z.start + z.size);
    if (!zone) throw new Error(`no zone at ${offset}`);
    return zone;
  }

  open(): number {
    return this.zones.filter((z) => z.state === "implicitly-open" || z.state === "explicitly-open").length;
  }

  active(): number {
    return this.open() + this.zones.filter((z) => z.state === "closed").length;
  }

  busy(zone: SimpleZone): boolean {
    return zone.writes.some((w) => w.io === "running" || w.answer === "none");
  }

  /** All below it is acknowledged. */
  committed(zone: SimpleZone): number {
    const open = zone.writes.filter((w) => w.answer === "none").map((w) => w.offset);
    return Math.min(zone.pointer, ...open);
  }

  write(offset: number, length: number): SimpleWrite | string {
    const zone = this.zoneAt(offset);
    if (zone.conventional) return this.conventionalWrite(offset, length);
    const refused = this.refuseWrite(zone);
    if (refused) return refused;
    if (offset !== zone.pointer) return "ZONE_INVALID_WRITE";
    return this.accept(zone, offset, length);
  }

  append(offset: number, length: number): SimpleWrite | string {
    const zone = this.zoneAt(offset);
    if (zone.start !== offset) return "ZONE_MISALIGNED";
    if (zone.conventional) return "ZONE_NOT_SEQUENTIAL";
    if (length > this.options.maxAppend) return "ZONE_APPEND_TOO_LARGE";
    return this.refuseWrite(zone) ?? this.accept(zone, zone.pointer, length);
  }

  conventionalWrite(offset: number, length: number): string {
    const sequential = this.zones.find((z) => !z.conventional);
    if (sequential && offset + length > sequential.start) return "ZONE_BOUNDARY";
    const bad = this.zones.find(
      (z) =>
        z.start < offset + length && z.start + z.size > offset && (z.state === "read-only" || z.state === "offline"),
    );
    if (bad) return bad.state === "offline" ? "ZONE_OFFLINE" : "ZONE_READ_ONLY";
    return "ok";
  }

  refuseWrite(zone: SimpleZone): string | undefined {
    if (zone.state === "offline") return "ZONE_OFFLINE";
    if (zone.state === "read-only") return "ZONE_READ_ONLY";
    if (zone.writes.some((w) => w.io === "bad")) return "ZONE_ABORTED";
    if (zone.pointer === zone.start + zone.capacity) return "ZONE_FULL";
    return undefined;
  }

  /** A write whose I/O runs, behind one that failed. */
  doomed(zone: SimpleZone, write: SimpleWrite): boolean {
    const position = zone.writes.indexOf(write);
    return zone.writes.slice(0, position).some((w) => w.io === "bad");
  }

  accept(zone: SimpleZone, offset: number, length: number): SimpleWrite | string {
    if (offset + length > zone.start + zone.capacity) return "ZONE_BOUNDARY";
    if (zone.state === "empty" || zone.state === "closed") {
      const refused = this.makeRoom(zone);
      if (refused) return refused;
      zone.state = "implicitly-open";
    }
    this.clock += 1;
    zone.lastWrite = this.clock;
    zone.pointer = offset + length;
    const write: SimpleWrite = { offset, length, answer: "none", io: "running" };
    zone.writes.push(write);
    return write;
  }

  makeRoom(zone: SimpleZone): string | undefined {
    const { maxOpen, maxActive } = this.options;
    if (zone.state === "empty" && maxActive > 0 && this.active() >= maxActive) return "ZONE_TOO_MANY_ACTIVE";
    if (maxOpen === 0 || this.open() < maxOpen) return undefined;
    const implicit = this.zones.filter((z) => z.state === "implicitly-open");
    implicit.sort((a, b) => a.lastWrite - b.lastWrite);
    const victim = implicit[0];
    if (!victim) return "ZONE_TOO_MANY_OPEN";
    victim.state = "closed";
    return undefined;
  }

  /** The I/O of `write` ended well (`good`) or failed. */
  end(write: SimpleWrite, good: boolean): void {
    const zone = this.zones.find((z) => z.writes.includes(write));
    if (!zone) throw new Error("unknown write");
    if (write.answer === "aborted" || this.doomed(zone, write)) {
      write.io = "good";
      write.answer = "aborted";
    } else {
      write.io = good ? "good" : "bad";
    }
    this.answer(zone, write);
    if (!this.busy(zone)) zone.writes = [];
  }

  answer(zone: SimpleZone, ended: SimpleWrite): void {
    if (ended.io === "bad") {
      ended.answer = "failed";
      zone.pointer = ended.offset;
      const later = zone.writes.slice(zone.writes.indexOf(ended) + 1);
      for (const write of later) if (write.answer === "none") write.answer = "aborted";
      if (zone.pointer === zone.start && zone.state !== "explicitly-open") zone.state = "empty";
    }
    for (const write of zone.writes) {
      if (write.answer === "none" && write.io === "running") break;
      if (write.answer === "none") write.answer = "acknowledged";
    }
    const done = zone.writes.every((w) => w.answer !== "none");
    if (done && zone.pointer === zone.start + zone.capacity) zone.state = "full";
  }

  zonesIn(offset: number, length: number): SimpleZone[] {
    return this.zones.filter((z) => z.start >= offset && z.start < offset + length);
  }

  manage(operation: string, offset: number, length: number): string {
    if (length === 0) return "ZONE_MISALIGNED";
    let zones = this.zonesIn(offset, length);
    if (operation === "reset" && zones.some((z) => !z.conventional)) zones = zones.filter((z) => !z.conventional);
    const before = JSON.stringify(this.zones);
    // Try it for real; when something refuses, put everything back.
    for (const zone of zones) {
      if (zone.conventional) return this.undo(before, "ZONE_NOT_SEQUENTIAL");
      if (zone.state === "offline") return this.undo(before, "ZONE_OFFLINE");
      if (zone.state === "read-only") return this.undo(before, "ZONE_READ_ONLY");
      if (operation === "open" && zone.state === "full") return this.undo(before, "ZONE_INVALID_TRANSITION");
    }
    return this.perform(operation, zones, before);
  }

  manageAll(operation: string): string {
    const chosen = this.zones.filter((z) => {
      if (z.conventional || z.state === "read-only" || z.state === "offline") return false;
      if (operation === "reset") return true;
      if (operation === "open") return z.state === "closed";
      const isOpen = z.state === "implicitly-open" || z.state === "explicitly-open";
      return operation === "close" ? isOpen : isOpen || z.state === "closed";
    });
    return this.perform(operation, chosen, JSON.stringify(this.zones));
  }

  perform(operation: string, zones: SimpleZone[], before: string): string {
    if (operation === "open") for (const z of zones) if (z.state === "implicitly-open") z.state = "explicitly-open";
    for (const zone of zones) {
      const refused = this.performOne(operation, zone);
      if (refused) return this.undo(before, refused);
    }
    return "ok";
  }

  performOne(operation: string, zone: SimpleZone): string | undefined {
    const { maxActive } = this.options;
    if (operation === "reset") {
      zone.pointer = zone.start;
      zone.state = "empty";
    } else if (operation === "finish") {
      if (zone.state === "empty" && maxActive > 0 && this.active() >= maxActive) return "ZONE_TOO_MANY_ACTIVE";
      zone.pointer = zone.start + zone.capacity;
      zone.state = "full";
    } else if (operation === "close") {
      if (zone.state === "full" || zone.state === "empty") return undefined;
      zone.state = zone.pointer === zone.start ? "empty" : "closed";
    } else if (zone.state !== "explicitly-open") {
      const refused = this.makeRoom(zone);
      if (refused) return refused;
      zone.state = "explicitly-open";
    }
    return undefined;
  }

  /** Zones of a refused operation have no writes in flight, but others may: their tickets must stay the same objects. */
  undo(before: string, code: string): string {
    const saved = JSON.parse(before) as SimpleZone[];
    this.zones.forEach((zone, i) => {
      const old = saved[i];
      if (!old) return;
      zone.state = old.state;
      zone.pointer = old.pointer;
    });
    return code;
  }

  force(offset: number, state: string): string {
    const zone = this.zoneAt(offset);
    if (state === "read-only" || state === "offline") {
      zone.state = state;
      return "ok";
    }
    if (zone.state !== "read-only" && zone.state !== "offline") return "ok";
    if (zone.conventional) zone.state = "not-wp";
    else if (zone.pointer === zone.start) zone.state = "empty";
    else if (zone.pointer === zone.start + zone.capacity) zone.state = "full";
    else {
      const { maxActive } = this.options;
      if (maxActive > 0 && this.active() >= maxActive) return "ZONE_TOO_MANY_ACTIVE";
      zone.state = "closed";
    }
    return "ok";
  }

  reopen(): void {
    for (const zone of this.zones) {
      zone.writes = [];
      if (zone.conventional) zone.state = "not-wp";
      else if (zone.pointer === zone.start) zone.state = "empty";
      else zone.state = zone.pointer === zone.start + zone.capacity ? "full" : "closed";
    }
  }
}
