#!/bin/sh
# What the container tests need, from Debian's packages, if it is not there and we may install it; else a loud word.
# The tests look for themselves and are skipped without it, so this never fails.
absent=
for tool in buildah podman runc mmdebstrap catatonit; do
    command -v "$tool" > /dev/null || absent="$absent $tool"
done
[ -z "$absent" ] && exit 0
if [ "$(id -u)" = 0 ] && [ -f /etc/debian_version ] && command -v apt-get > /dev/null; then
    # Unquoted on purpose: several tools are several words.
    # shellcheck disable=SC2086
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends $absent && exit 0
fi
echo "NO CONTAINER WILL BE BUILT OR RUN: missing$absent, and they cannot be installed here" >&2
exit 0
