# Writes to an image with zones of 1 MiB and a capacity of 512 KiB, the first of them conventional. For nbdsh, with the
# address of the server in `uri`.
def attempt(name, work):
    try:
        work()
        print(f"{name}: done")
    except nbd.Error as error:
        print(f"{name}: {error.errno}")

MIB = 1 << 20
KIB = 1 << 10
h.add_meta_context("zcow:zones")
h.connect_uri(uri)
# What the library itself would refuse of a read-only export.
h.set_strict_mode(0)
attempt("at the start", lambda: h.pwrite(b"\x05" * 64 * KIB, MIB))
attempt("at the write pointer", lambda: h.pwrite(b"\x06" * 4 * KIB, MIB + 64 * KIB))
attempt("before the write pointer", lambda: h.pwrite(b"\x07" * 4 * KIB, MIB))
attempt("behind the write pointer", lambda: h.pwrite(b"\x07" * 4 * KIB, MIB + 128 * KIB))
attempt("zeros at the write pointer", lambda: h.zero(4 * KIB, MIB + 68 * KIB))
attempt("zeros before the write pointer", lambda: h.zero(4 * KIB, MIB))
attempt("nearly full", lambda: h.pwrite(b"\x09" * 508 * KIB, 2 * MIB))
attempt("across the capacity", lambda: h.pwrite(b"\x09" * 8 * KIB, 2 * MIB + 508 * KIB))
attempt("to the capacity", lambda: h.pwrite(b"\x09" * 4 * KIB, 2 * MIB + 508 * KIB))
attempt("full", lambda: h.pwrite(b"\x09" * 4 * KIB, 2 * MIB))
attempt("conventional, anywhere", lambda: h.pwrite(b"\x08" * 4 * KIB, 400 * KIB))
attempt("flush", h.flush)
h.block_status(4 * MIB, 0, lambda context, at, entries, error: print(context, entries))
print([h.pread(1, at)[0] for at in (400 * KIB, MIB, MIB + 64 * KIB, MIB + 128 * KIB, 2 * MIB)])
h.shutdown()
