import { endedMidwaySuite } from "../support/ended-midway-suite.js";

endedMidwaySuite({ moments: 10, everySignal: true });
