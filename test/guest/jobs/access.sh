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
