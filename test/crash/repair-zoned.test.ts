import { FEATURE_IMAGES, kindOf } from "../support/operation-images.js";
import { describeRepairs } from "../support/repair-suite.js";

const images = FEATURE_IMAGES.filter((feature) => kindOf(feature) === "zoned");

describeRepairs("a zoned image", images, { rounds: 12, cuts: 3, faults: 2 }, 1);
