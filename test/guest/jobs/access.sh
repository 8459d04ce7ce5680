# Who may connect, and how hosts fare when the server does not answer.

other_host=(-q nqn.2014-08.org.nvmexpress:uuid:0c6f7f0e-33a3-4c4e-9d5c-2a5b7d2f9b02 -I 0c6f7f0e-33a3-4c4e-9d5c-2a5b7d2f9b02)

# refused WORDS COMMAND...: the command must fail, and the kernel must have said these words about it.
refused() {
  local words=$1
  shift
  dmesg --clear
  ! "$@" || fail "not refused: $*"
  dmesg | grep -iE "$words" || fail "the kernel said: $(dmesg | tail -n 5)"
}

attach() { modprobe nvme-tcp; nvme connect -t tcp -a 10.0.2.2 -s "$@"; }

# The daemon that makes TLS handshakes for the kernel.
start_tlshd() {
  # The first brings the kernel's ring of keys.
  modprobe -a nvme-tcp tls
  pidof tlshd > /dev/null && return
  printf '[debug]\nloglevel=1\n[authenticate]\nkeyrings=.nvme\n' > /etc/tlshd.conf
  tlshd -c /etc/tlshd.conf -s > tlshd.log 2>&1 &
  sleep 1
}

# start_rewriting MIB [fio options]: writes a disk without zones at random and compares, beside the script that starts it.
start_rewriting() {
  local size=$1
  shift
  rm -f rewrite.out rewrite.end
  {
    fio --name=rewrite --filename="$(namespace 1)" --rw=randwrite --bs=16k --size="$size"M --direct=1 --verify=crc32c \
      --verify_fatal=1 --ioengine=libaio --iodepth=4 "$@"
    echo "fio exited with $?" > rewrite.end
  } > rewrite.out 2>&1 &
}

expect_rewritten() {
  local wait
  for ((wait = 0; wait < 200; wait++)); do [ ! -e rewrite.end ] || break; sleep 1; done
  grep -qx 'fio exited with 0' rewrite.end || fail "$(cat rewrite.end; head -n 12 rewrite.out)"
}

# An attribute of namespace 1 that names it: identity_of nguid
identity_of() { cat "/sys/block/$(basename "$(namespace 1)")/$1"; }

note_identity() {
  basename "$(namespace 1)" > disk.before
  identity_of nguid > nguid.before
  identity_of uuid > uuid.before
}

write_block() { dd if=/dev/zero of="$(namespace 1)" bs=4k count=1 oflag=direct status=none; }

# A program that keeps namespace 1 open, and writes to it when the file write.now is there.
start_holding() {
  rm -f write.now write.end
  {
    until [ -e write.now ]; do sleep 0.1; done
    dd if=/dev/zero bs=4k count=1 oflag=direct conv=notrunc status=none && status=0 || status=$?
    echo "$status" > write.end
  } 1<> "$(namespace 1)" 2> /dev/null &
}

# The kernel has seen that the disk is another one, and has taken the old one away from the program that holds it.
expect_disk_gone() {
  local wait disk
  disk=$(cat disk.before)
  for ((wait = 0; wait < 1200; wait++)); do
    if dmesg | grep "identifiers changed for nsid 1" > /dev/null; then break; fi
    sleep 0.1
  done
  [ $wait -lt 1200 ] || fail "the kernel did not see another disk: $(dmesg | tail -n 5)"
  await [ ! -e "/sys/block/$disk" ]
  touch write.now
  await [ -s write.end ]
  [ "$(cat write.end)" != 0 ] || fail "the program wrote to the disk that is gone"
}

expect_other_disk() {
  [ "$(identity_of nguid)" != "$(cat nguid.before)" ] || fail "the NGUID is the same"
  [ "$(identity_of uuid)" = "$(cat uuid.before)" ] || fail "the UUID is another one"
}

# expect_zeros NAMESPACE BYTES: at the start of the disk.
expect_zeros() { cmp -n "$2" /dev/zero "$(namespace "$1")"; }

no_io_errors() { ! dmesg | grep -E 'I/O error|I/O Error' || fail "the kernel had I/O errors"; }
