#!/bin/sh
set -e
# Options, and anything that is not a command, are arguments of curl.
if [ "${1#-}" != "$1" ] || [ -z "$(command -v "$1")" ]; then
  set -- curl "$@"
fi
exec "$@"
