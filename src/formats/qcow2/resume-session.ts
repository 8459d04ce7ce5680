import { isZcowError, type WarningSink } from "../../base/errors.js";
import { ChangeJournal } from "../../storage/change-journal.js";
import { JournalFile, journalPathBeside } from "../../storage/journal-file.js";
import { replayJournal } from "../../storage/journal-replay.js";
import type { Storage } from "../../storage/storage.js";
import { checkQcow2 } from "./check/check.js";
import { INCOMPATIBLE } from "./features.js";
import type { Qcow2Header } from "./header.js";
import { readHeader } from "./header-read.js";
import { replaceHeader } from "./header-replace.js";
import { resumeTails } from "./resume-tails.js";
import { sessionOf, withSession } from "./session.js";

/**
 * Finishes what the process did that had the image open, kept a journal and was killed: its last, interrupted flush. Leaves
 * the image as if it had been closed. Done before anything else is changed, by whoever opens the image for writing next.
 *
 *     tails of clusters zeroed                       | killed or crashed here: done again, or ignored after a crash
 *     records applied, stage by stage, each durable  | killed or crashed here: done again, or ignored after a crash
 *     mark of the session removed                    | everything was durable before
 *     journal removed, leaked clusters given back    | leak
 *
 * Leaks are looked for because the process may have been killed between taking clusters and mapping them. `journal`: where
 * the records are; default: beside the image. Throws the codes of the journal's place (`ACCESS_DENIED`: somebody else could have
 * written it), and of the storage.
 */
export async function resumeSession(
  storage: Storage,
  header: Qcow2Header,
  onWarning: WarningSink,
  journal: ChangeJournal = new ChangeJournal(new JournalFile(journalPathBeside(storage.name))),
): Promise<Qcow2Header> {
  const session = sessionOf(header);
  if (session === undefined) return header;
  const records = journal.recordsOf(session);
  if (records === undefined) {
    onWarning({
      code: "SESSION_LOST",
      message: `${storage.name} was in use when the machine stopped, or its journal is gone: what was written after the last flush is not there`,
      data: { path: storage.name },
    });
    return header;
  }
  await replayJournal(storage, await resumeTails(storage, header, records));
  await replaceHeader(storage, withSession(header, undefined), () => storage.flush());
  journal.discard();
  // With the dirty bit set, refcounts are rebuilt anyway.
  if ((header.features.incompatible & INCOMPATIBLE.dirty) === 0n) await checkQcow2(storage, { repair: "leaks" });
  onWarning({
    code: "SESSION_RESUMED",
    message: `${storage.name} was in use by a process that was killed: nothing that it had acknowledged is lost`,
    data: { path: storage.name },
  });
  return readHeader(storage, { writable: true });
}

/** The same for those who repair the image without opening it; nothing when its header is beyond reading. */
export async function resumeBeforeRepair(storage: Storage): Promise<void> {
  let header: Qcow2Header;
  try {
    header = await readHeader(storage, { writable: true });
  } catch (error) {
    if (isZcowError(error)) return;
    throw error;
  }
  await resumeSession(storage, header, () => undefined);
}
