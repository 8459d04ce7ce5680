# fio's own test of zoned devices (t/zbd/test-zbd-support) on $DISK: prints its verdicts, one per test.
fio_zbd() {
  cd /fio
  ./t/zbd/test-zbd-support "$@" "$DISK" > /tmp/fio-zbd.log 2>&1
  local status=$?
  cat /tmp/fio-zbd.log
  return $status
}
