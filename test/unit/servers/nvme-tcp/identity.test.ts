import { describe, expect, test } from "vitest";
import { ImageIdentity, parseUuid, uuidText } from "../../../../src/servers/nvme-tcp/identity.js";

const identity = (path: string, machine = "m1") => new ImageIdentity(path, { machine });

describe("the names of a disk", () => {
  test("are the same every time", () => {
    expect(identity("/a").namespace("whole")).toEqual(identity("/a").namespace("whole"));
    expect(identity("/a").subsystemNqn()).toBe(identity("/a").subsystemNqn());
    expect(identity("/a").serial()).toMatch(/^[0-9A-F]{20}$/);
  });

  test("differ by path, by machine and by part, and none is another's", () => {
    const all = [identity("/a"), identity("/b"), identity("/a", "m2")].flatMap((image) =>
      (["whole", "conventional", "sequential"] as const).flatMap((part) => {
        const { uuid, nguid } = image.namespace(part);
        return [uuidText(uuid), Buffer.from(nguid).toString("hex")];
      }),
    );
    expect(new Set(all).size).toBe(all.length);
  });

  test("are well formed", () => {
    const { uuid, nguid } = identity("/a").namespace("whole");
    expect(uuidText(uuid)).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
    // Locally administered, not multicast.
    expect((nguid[8] ?? 0) & 3).toBe(2);
    expect(identity("/a").subsystemNqn()).toMatch(/^nqn\.2014-08\.org\.nvmexpress:uuid:[0-9a-f-]{36}$/);
  });

  test("follow a UUID that was given, wherever the image is", () => {
    const uuid = parseUuid("00112233-4455-6677-8899-AABBCCDDEEFF");
    const [a, b] = [new ImageIdentity("/a", { uuid, machine: "m1" }), new ImageIdentity("/b", { uuid, machine: "m2" })];
    expect(uuidText(a.namespace("whole").uuid)).toBe("00112233-4455-6677-8899-aabbccddeeff");
    expect(b.namespace("sequential").uuid).toEqual(uuid);
    expect(b.namespace("conventional").uuid).not.toEqual(uuid);
    expect(a.subsystemNqn()).toBe(b.subsystemNqn());
  });

  test.each(["", "x", "00112233-4455-6677-8899-aabbccddee", "g0112233-4455-6677-8899-aabbccddeeff"])(
    "'%s' is no UUID",
    (text) => {
      expect(() => parseUuid(text)).toThrow("is not a UUID");
    },
  );
});
