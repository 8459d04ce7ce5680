import type { ImplicitFileRole } from "../../block/open-policy.js";
import type { Findings, ImageReference, ReferenceReach } from "./report.js";

/** Where the name of a file that an image refers to leads. */
export function referenceReach(name: string): ReferenceReach {
  const colon = name.indexOf(":");
  const slash = name.indexOf("/");
  if (colon > 0 && (slash < 0 || colon < slash)) {
    return name.startsWith("file:") ? referenceReach(name.slice("file:".length)) : "protocol";
  }
  return name.startsWith("/") || name.split("/").includes("..") ? "outside" : "beside";
}

const WHERE: Readonly<Record<ReferenceReach, string>> = {
  beside: "beside the image",
  outside: "outside of the folder of the image",
  protocol: "by a protocol that it chooses",
};

/** Notes a file that the image names. What stays in its folder is a decision; what leaves it, a danger. */
export function reportReference(
  role: ImplicitFileRole | "parent",
  name: string,
  format: string | undefined,
  findings: Findings,
): ImageReference {
  const reach = referenceReach(name);
  const code = `${role.replaceAll(" ", "-")}${reach === "beside" ? "" : `-${reach}`}`;
  findings.add(reach === "beside" ? "decision" : "danger", code, `names the ${role} '${name}', ${WHERE[reach]}`);
  return { role, name, format, reach };
}
