import { runProgram } from "../../src/cli/program.js";
import type { ToolResult } from "./stock-tools.js";

/** Our program standing in for a stock tool, in this process: that spares a start of Node.js for each of many runs. */
export async function standInHere(tool: "qemu-img" | "qemu-io", args: readonly string[]): Promise<ToolResult> {
  let stdout = "";
  let stderr = "";
  const output = { out: (text: string) => void (stdout += text), err: (text: string) => void (stderr += text) };
  const code = await runProgram(tool, args, output);
  return { stdout, stderr, code };
}

/** `qemu-img` as we do it, in this process: takes the same arguments as the stock one. */
export const ourQemuImg = (args: readonly string[]): Promise<ToolResult> => standInHere("qemu-img", args);
