import { createInterface } from "node:readline";

const PROMPT = "qemu-io> ";

/**
 * Lines of standard input. `show` gets the prompt before each, whether or not a person is there: scripts that
 * drive the stock tool expect it.
 */
export async function* inputLines(show: (prompt: string) => void): AsyncGenerator<string> {
  const input = createInterface({
    input: process.stdin,
    ...(process.stdin.isTTY ? { output: process.stdout } : {}),
    prompt: "",
  });
  show(PROMPT);
  try {
    for await (const line of input) {
      yield line;
      show(PROMPT);
    }
  } finally {
    input.close();
  }
}
