import { describe, expect, it } from "vitest";
import { type ImplicitFile, permitImplicitFile } from "../../../src/block/open-policy.js";

const backing: ImplicitFile = { role: "backing file", name: "/etc/shadow", format: undefined, image: "guest.qcow2" };

describe("permitImplicitFile", () => {
  it("denies by default what nobody allowed, naming the file and its role", async () => {
    await expect(permitImplicitFile("deny", backing)).rejects.toMatchObject({
      code: "IMPLICIT_FILE_DENIED",
      message: expect.stringContaining("/etc/shadow"),
      data: { path: "guest.qcow2", structure: "backing file", value: "/etc/shadow" },
    });
  });

  it("allows everything when told so, guessing of formats only when told that too", async () => {
    expect(await permitImplicitFile("allow", backing)).toBe(false);
    expect(await permitImplicitFile("probe", backing)).toBe(true);
    expect(await permitImplicitFile(() => "probe", backing)).toBe(true);
  });

  it("asks the caller's function about each file", async () => {
    const asked: ImplicitFile[] = [];
    const policy = async (file: ImplicitFile): Promise<boolean> => {
      asked.push(file);
      return file.name.startsWith("/images/");
    };
    await expect(permitImplicitFile(policy, backing)).rejects.toMatchObject({ code: "IMPLICIT_FILE_DENIED" });
    expect(await permitImplicitFile(policy, { ...backing, name: "/images/base" })).toBe(false);
    expect(asked.map((file) => file.name)).toEqual(["/etc/shadow", "/images/base"]);
  });
});
