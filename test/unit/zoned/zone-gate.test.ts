import { describe, expect, it } from "vitest";
import { zoneIndex } from "../../../src/base/units.js";
import { ZoneGate } from "../../../src/zoned/zone-gate.js";
import type { ZoneModel } from "../../../src/zoned/zone-model.js";
import { makeModel, operate, START, write, Z, ZONE } from "./zone-fixture.js";

const Z3 = zoneIndex(3);
const Z4 = zoneIndex(4);

function setUp(): { model: ZoneModel; gate: ZoneGate; log: string[] } {
  const model = makeModel();
  return { model, gate: new ZoneGate(model), log: [] };
}

async function turn(): Promise<void> {
  await new Promise((resolve) => setImmediate(resolve));
}

describe("ZoneGate", () => {
  it("lets writes pass while no operation is there", () => {
    const { gate } = setUp();
    expect(gate.blocks(Z)).toBe(false);
  });

  it("an operation starts when the writes in flight of its zone have ended", async () => {
    const { model, gate, log } = setUp();
    const ticket = model.submitWrite(START, 512);
    const done = gate.exclusively(Z, Z, () => {
      log.push("operation");
    });
    await turn();
    expect(log).toEqual([]);
    if (ticket !== undefined) void model.complete(ticket);
    await done;
    expect(log).toEqual(["operation"]);
  });

  it("an operation waits for abandoned writes to end, too", async () => {
    const { model, gate, log } = setUp();
    const first = model.submitWrite(START, 512);
    const second = model.submitWrite(START + 512, 512);
    if (first === undefined || second === undefined) throw new Error("no tickets");
    const done = gate.exclusively(Z, Z, () => log.push("operation"));
    model.fail(first, new Error("no"));
    await turn();
    expect(log).toEqual([]);
    model.fail(second, new Error("no"));
    await done;
  });

  it("writes that arrive while an operation waits or runs are submitted after it, in order", async () => {
    const { model, gate, log } = setUp();
    write(model, START, 512);
    const reset = gate.exclusively(Z, Z, async () => {
      await turn();
      operate(model, "reset", START);
      log.push("reset");
    });
    expect(gate.blocks(Z)).toBe(true);
    const writes = [0, 512, 1024].map((at) =>
      gate.afterOperations(Z, () => {
        write(model, START + at, 512);
        log.push(`write ${at}`);
      }),
    );
    await Promise.all([reset, ...writes]);
    expect(log).toEqual(["reset", "write 0", "write 512", "write 1024"]);
    expect(model.writePointer(Z)).toBe(START + 1536);
    expect(gate.blocks(Z)).toBe(false);
  });

  it("twenty thousand writes behind an operation do not exhaust the stack", async () => {
    const { model, gate } = setUp();
    const blocker = gate.exclusively(Z, Z, turn);
    const writes = Array.from({ length: 20_000 }, () =>
      gate.afterOperations(Z, () => {
        const ticket = model.submitAppend(START, 512);
        if (model.writePointer(Z) === START + 20 * 1024) operateReset(model, ticket);
        else void model.complete(ticket);
      }),
    );
    await Promise.all([blocker, ...writes]);
  });

  it("a write refused after an operation rejects its own promise only", async () => {
    const { model, gate } = setUp();
    const finish = gate.exclusively(Z, Z, () => operate(model, "finish", START));
    const refused = gate.afterOperations(Z, () => write(model, START, 512));
    await expect(refused).rejects.toMatchObject({ code: "ZONE_FULL" });
    await finish;
  });

  it("other zones are not held up", async () => {
    const { model, gate } = setUp();
    const ticket = model.submitWrite(START, 512);
    const held = gate.exclusively(Z, Z, () => undefined);
    expect(gate.blocks(Z3)).toBe(false);
    await gate.exclusively(Z3, Z3, () => operate(model, "finish", START + ZONE));
    if (ticket !== undefined) void model.complete(ticket);
    await held;
  });

  it("overlapping operations run one after the other, in order of arrival", async () => {
    const { gate, log } = setUp();
    const step = (name: string) => async (): Promise<void> => {
      log.push(`${name} starts`);
      await turn();
      log.push(`${name} ends`);
    };
    await Promise.all([
      gate.exclusively(Z, Z3, step("a")),
      gate.exclusively(Z3, Z4, step("b")),
      gate.exclusively(Z, Z4, step("c")),
    ]);
    expect(log).toEqual(["a starts", "a ends", "b starts", "b ends", "c starts", "c ends"]);
  });

  it("a failed operation lets the next one in", async () => {
    const { gate, log } = setUp();
    const failed = gate.exclusively(Z, Z, () => {
      throw new Error("no");
    });
    const next = gate.exclusively(Z, Z, () => log.push("next"));
    await expect(failed).rejects.toThrow("no");
    await next;
    expect(log).toEqual(["next"]);
  });

  it("a write queued between two operations runs between them", async () => {
    const { model, gate, log } = setUp();
    const first = gate.exclusively(Z, Z, async () => {
      await turn();
      log.push("first");
    });
    const queued = gate.afterOperations(Z, () => {
      write(model, START, 512);
      log.push("write");
    });
    const second = gate.exclusively(Z, Z, () => log.push(`second at ${model.writePointer(Z) - START}`));
    await Promise.all([first, queued, second]);
    expect(log).toEqual(["first", "write", "second at 512"]);
  });
});

function operateReset(model: ZoneModel, ticket: Parameters<ZoneModel["complete"]>[0]): void {
  void model.complete(ticket);
  operate(model, "reset", START);
}
