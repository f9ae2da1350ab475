#!/bin/sh
set -e
# An option, or what is no command here, is for curl.
if [ "${1#-}" != "$1" ] || [ -z "$(command -v "$1")" ]; then
  set -- curl "$@"
fi
exec "$@"
