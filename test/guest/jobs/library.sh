# Functions that every script of the host can use inside the guest.

set -o pipefail

# Before Linux 6.10 only this scheduler kept zone writes in order; newer kernels do it themselves.
modprobe -q mq-deadline || true

fail() { echo "FAILED: $*"; exit 1; }

# Waits up to ten seconds until a command succeeds.
await() {
  local end=$((SECONDS + 10))
  until "$@" > /dev/null 2>&1; do
    [ $SECONDS -lt $end ] || fail "still not so after 10 s: $*"
    sleep 0.1
  done
}

# /dev node of a namespace by its ID: the numbers in device names come from the order of discovery. The hidden path
# nodes of multipath (nvme0c0n1) are left out.
namespace() {
  local entry
  for entry in /sys/block/nvme*n*; do
    [[ ${entry##*/} =~ ^nvme[0-9]+n[0-9]+$ ]] || continue
    if [ "$(cat "$entry/nsid")" = "$1" ]; then echo "/dev/${entry##*/}"; return; fi
  done
  return 1
}

# A name of a namespace that stays the same over connects, as udev's links in /dev/disk/by-id do elsewhere.
lasting_name() {
  mkdir -p /dev/lasting
  ln -sf "$(namespace "$1")" "/dev/lasting/$1"
  echo "/dev/lasting/$1"
}

# An attribute of the queue of a disk: queue_of /dev/nvme0n1 zoned
queue_of() { cat "/sys/block/${1#/dev/}/queue/$2"; }

# connect PORT NQN NAMESPACE-COUNT [nvme connect options]: attaches a subsystem of the host's loopback and waits for its disks.
connect() {
  local port=$1 nqn=$2 count=$3 id
  shift 3
  modprobe nvme-tcp
  nvme connect -t tcp -a 10.0.2.2 -s "$port" -n "$nqn" "$@" || fail "nvme connect exited with $?"
  for ((id = 1; id <= count; id++)); do await namespace "$id"; done
}

disconnect() { nvme disconnect-all; }

# Length of a zone in 512-byte sectors, as a number that blkzone takes.
zone_sectors() { queue_of "$1" chunk_sectors; }

# Bytes of a zone that can be written.
zone_capacity() {
  local line
  line=$(blkzone report -c 1 "$1")
  [[ $line =~ cap\ (0x[0-9a-f]+) ]] || fail "no capacity in: $line"
  echo $((BASH_REMATCH[1] * 512))
}

# fio, silent unless it fails.
quiet_fio() { fio "$@" > fio.out 2>&1 || fail "fio exited with $?: $(tail -n 30 fio.out)"; }

# Fails when the kernel has complained about itself since boot.
kernel_is_content() {
  ! dmesg | grep -E 'WARNING:|BUG:|Call Trace|blocked for more|general protection' || fail "the kernel complains"
}
