import { describe, expect, it } from "vitest";
import { parseReference, resolveReference } from "../../../src/block/image-reference.js";

describe("resolveReference", () => {
  it.each([
    ["base.raw", "overlay.qcow2", "base.raw"],
    ["base.raw", "/images/overlay.qcow2", "/images/base.raw"],
    ["../base.raw", "sub/overlay.qcow2", "sub/../base.raw"],
    ["/images/base.raw", "sub/overlay.qcow2", "/images/base.raw"],
    ["file:base.raw", "sub/overlay.qcow2", "file:base.raw"],
    ["nbd://host/disk", "sub/overlay.qcow2", "nbd://host/disk"],
    ['json:{"driver":"raw"}', "sub/overlay.qcow2", 'json:{"driver":"raw"}'],
    ["./a:b", "sub/overlay.qcow2", "sub/./a:b"],
    ["base.raw", "file:overlay.qcow2", "file:base.raw"],
    ["base.raw", "file:sub/overlay.qcow2", "file:sub/base.raw"],
  ])("takes %s of %s for %s", (name, image, resolved) => {
    expect(resolveReference(name, image)).toBe(resolved);
  });

  it("refuses a relative name of an image that has no folder", () => {
    expect(() => resolveReference("base.raw", 'json:{"file.filename":"x"}')).toThrow(
      expect.objectContaining({ code: "FILE_REFERENCE" }),
    );
  });
});

describe("parseReference", () => {
  it.each([
    ["sub/base.raw", "raw", { protocol: "file", path: "sub/base.raw", format: "raw" }],
    ["file:base.raw", undefined, { protocol: "file", path: "base.raw", format: undefined }],
    ["host_device:/dev/sda", "raw", { protocol: "file", path: "/dev/sda", format: "raw" }],
    ["nbd:localhost:10809", "raw", { protocol: "nbd", path: "nbd:localhost:10809", format: "raw" }],
    [
      'json:{"driver":"qcow2","file":{"driver":"file","filename":"b.qcow2"}}',
      undefined,
      { protocol: "file", path: "b.qcow2", format: "qcow2" },
    ],
    ['json:{"driver":"qcow2","file.filename":"b"}', "raw", { protocol: "file", path: "b", format: "raw" }],
    [
      'json:{"driver":"qcow2","file":{"driver":"nbd","server":{"type":"inet","host":"::1","port":"10810"},"export":"a b"}}',
      "qcow2",
      { protocol: "nbd", path: "nbd://[::1]:10810/a%20b", format: "qcow2" },
    ],
    [
      'json:{"driver":"nbd","path":"/run/x.sock"}',
      undefined,
      { protocol: "nbd", path: "nbd+unix:///?socket=/run/x.sock", format: "raw" },
    ],
    ['json:{"driver":"file","filename":"b.raw"}', undefined, { protocol: "file", path: "b.raw", format: "raw" }],
    [
      'json:{"driver":"raw","file":{"driver":"file","filename":"b","locking":"off"},"node-name":"n","read-only":true}',
      undefined,
      { protocol: "file", path: "b", format: "raw" },
    ],
  ])("understands %s", (name, format, reference) => {
    expect(parseReference(name, format)).toEqual(reference);
  });

  it.each([
    ["json:{", "JSON"],
    ["json:[]", "no JSON object"],
    ["json:null", "no JSON object"],
    ["json:{}", "file.filename"],
    ['json:{"file":{"driver":"nbd"}}', "names no NBD server"],
    ['json:{"file":{"driver":"nbd","host":"h","tls":"x"}}', "option 'file.tls' is not known"],
    ['json:{"file":"node"}', "file.filename"],
    ['json:{"file.filename":"b","backing":{"driver":"raw"}}', "backing.driver"],
    [`json:${'{"a":'.repeat(150)}1${"}".repeat(150)}`, "file.filename"],
  ])("refuses %s", (name, reason) => {
    expect(() => parseReference(name, "raw")).toThrow(
      expect.objectContaining({ code: "FILE_REFERENCE", message: expect.stringContaining(reason) }),
    );
  });
});
