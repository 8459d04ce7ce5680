// `npm start`: sets up what is missing, then shows a zoned image at work.
import { runDemo } from "./demo.mjs";
import { setUp } from "./setup.mjs";

try {
  await setUp();
  await runDemo();
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
}
