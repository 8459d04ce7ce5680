# fio's own test of zoned devices (t/zbd/test-zbd-support) on $DISK: prints its verdicts, one per test, and behind them what
# the tests that failed have to say.
fio_zbd() {
  cd /fio
  ./t/zbd/test-zbd-support "$@" "$DISK" > /tmp/fio-zbd.log 2>&1
  local status=$?
  cat /tmp/fio-zbd.log
  for number in $(sed -n 's/^Running test \([0-9]*\) .*FAIL.*/\1/p' /tmp/fio-zbd.log); do
    echo "log of test $number:"
    tail -n 30 "t/zbd/test-zbd-support.log.$number"
  done
  return $status
}
