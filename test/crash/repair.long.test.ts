import { FEATURE_IMAGES } from "../support/operation-images.js";
import { describeRepairs } from "../support/repair-suite.js";

/** In pieces, so that each ends within a few minutes, and one can be run alone. */
for (const seed of [1000, 2000, 3000, 4000]) {
  describeRepairs(`any image from seed ${seed}`, FEATURE_IMAGES, { rounds: 40, cuts: 8, faults: 5 }, seed);
}
