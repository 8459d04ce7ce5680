import { describe, expect, it } from "vitest";
import { memoryStorage } from "../../src/storage/memory-storage.js";
import { operationsOn } from "./image-operations.js";
import { cutOperation, type Effort, failOperation } from "./operation-crash.js";
import { FEATURE_IMAGES, type FeatureImage, featureImage } from "./operation-images.js";
import { seedFromEnvironment } from "./random.js";

/** Every operation on every image that `chosen` picks: it survives power cuts and failing calls, or is refused and changes nothing. */
export function describeOperations(
  what: string,
  chosen: (feature: FeatureImage) => boolean,
  effort: Effort,
  firstSeed = 1,
): void {
  describe.each(FEATURE_IMAGES.filter(chosen))(`an operation on ${what}: $name`, (feature) => {
    const made = featureImage(feature);
    const seed = seedFromEnvironment(firstSeed);
    const all = operationsOn(feature);

    it.each(all.filter(({ refused }) => refused === undefined))(
      "leaves it old or new when power fails or a call does: $operation.name",
      async ({ operation }) => {
        const image = await made;
        expect(await cutOperation(image, operation, seed, effort)).toBeGreaterThan(0);
        expect(await failOperation(image, operation, seed, effort)).toBeGreaterThan(0);
      },
    );

    it.each(all.filter(({ refused }) => refused !== undefined))(
      "is refused and changes nothing: $operation.name, $refused",
      async ({ operation, refused }) => {
        const image = await made;
        const { bytes } = image;
        const storage = memoryStorage(bytes);
        await expect(operation.run(storage, image)).rejects.toThrowError(expect.objectContaining({ code: refused }));
        expect(Buffer.compare(storage.bytes(), bytes)).toBe(0);
      },
    );
  });
}
