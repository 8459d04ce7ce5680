#!/usr/bin/env bash
# Runs scripts for the host, one after the other, over the second serial port.
#   host:  run ID SECONDS BASE64-OF-SCRIPT
#   guest: ready KERNEL-RELEASE | out ID TEXT | end ID STATUS     (status 124: out of time)
port=/dev/ttyS1
stty -F "$port" raw -echo
exec 3<>"$port"
printf 'ready %s\n' "$(uname -r)" >&3

while read -r verb id seconds script <&3; do
  [ "$verb" = run ] || continue
  base64 -d <<< "$script" > "/tmp/script.$id"
  {
    timeout -k 5 "$seconds" bash "/tmp/script.$id" < /dev/null 2>&1 3>&-
    echo $? > "/tmp/status.$id"
  } | sed -u "s/^/out $id /" >&3
  printf 'end %s %s\n' "$id" "$(cat "/tmp/status.$id")" >&3
  rm -f "/tmp/script.$id" "/tmp/status.$id"
done
