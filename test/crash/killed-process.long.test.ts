import { killedProcessSuite } from "../support/killed-process-suite.js";

killedProcessSuite({ seeds: 8, moments: 40 });
