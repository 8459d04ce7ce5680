# Requests of every kind, and what comes of them. For nbdsh, with the address of the server in `uri`. Shows nothing in
# which two right servers may differ.
def attempt(name, work):
    try:
        print(name, work())
    except nbd.Error as error:
        print(name, "failed:", error.errno)

h.add_meta_context("base:allocation")
h.connect_uri(uri)
size = h.get_size()
print(size, h.get_protocol(), h.get_structured_replies_negotiated())
print(h.is_read_only(), h.can_flush(), h.can_fua(), h.can_trim(), h.can_zero(), h.can_fast_zero(), h.can_df(), h.can_cache())

# What surrounds an unaligned write may be data or zeros, unless something is there already.
h.pwrite(b"\x01" * 327_680, 65_536)
data = bytes((i * 7 + 3) & 255 for i in range(200_000))
h.pwrite(data, 123_457, nbd.CMD_FLAG_FUA)
print(h.pread(len(data), 123_457) == data, h.pread(10, 123_450))
h.zero(65_536, 131_072)
h.zero(65_536, 262_144, nbd.CMD_FLAG_NO_HOLE)
h.trim(65_536, 196_608)
h.cache(65_536, 0)
h.flush()
print(h.pread(65_536, 131_072) == bytes(65_536), h.pread(65_536, 262_144) == bytes(65_536))

def extents(offset, length, flags=0):
    found = []
    h.block_status(length, offset, lambda context, at, entries, error: found.append((context, at, entries)), flags)
    return found

print(extents(0, 1 << 20))
print(extents(0, 1 << 20, nbd.CMD_FLAG_REQ_ONE))
print(extents(130_000, 70_000))

def pieces(flags):
    found = []
    def chunk(part, offset, status, error):
        found.append((offset, len(part), status))
        return 0
    back = h.pread_structured(524_288, 0, chunk, flags)
    covered = sum(length for _, length, _ in found)
    return bytes(back) == h.pread(524_288, 0), covered

print(pieces(0))
fragments = []
h.pread_structured(524_288, 0, lambda part, offset, status, error: fragments.append(status) or 0, nbd.CMD_FLAG_DF)
print("unfragmented", len(fragments), fragments[0] == nbd.READ_DATA)

buffers = [nbd.Buffer.from_bytearray(bytearray(bytes([i]) * 4096)) for i in range(64)]
cookies = [h.aio_pwrite(buffer, size // 2 + i * 4096) for i, buffer in enumerate(buffers)]
while h.aio_in_flight() > 0:
    h.poll(-1)
print(all(h.aio_command_completed(cookie) for cookie in cookies))
print(h.pread(64 * 4096, size // 2) == b"".join(bytes([i]) * 4096 for i in range(64)))

# What the library itself would refuse.
h.set_strict_mode(0)
attempt("read past the end", lambda: h.pread(512, size))
attempt("read across the end", lambda: h.pread(1024, size - 512))
attempt("trim past the end", lambda: h.trim(512, size))
attempt("status past the end", lambda: extents(size, 512))
attempt("read with an unknown flag", lambda: h.pread(512, 0, 1 << 10))
attempt("trim with a flag of writes", lambda: h.trim(512, 0, nbd.CMD_FLAG_DF))
attempt("read too much", lambda: len(h.pread(33 << 20, 0)))
print("still here", h.pread(4, 123_457) == data[:4])
h.shutdown()
