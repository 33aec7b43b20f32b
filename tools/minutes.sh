#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A shell for make that notes the seconds of each command:  minutes.sh SHELL TARGET -c COMMAND
# Lines of the file $MINUTES: target, begin, end, exit code.
shell=$1
target=$2
shift 2
begin=$(date +%s)
"$shell" "$@"
code=$?
printf '%s %s %s %s\n' "$target" "$begin" "$(date +%s)" "$code" >> "$MINUTES"
exit "$code"
