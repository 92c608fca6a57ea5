# SPDX-License-Identifier: GPL-2.0
# Sourced by every lab script: where things are, and the few words they share.
#
# Shared by all checkouts, under $CACHE: the pristine base tree, the compiler
# cache, and the builds of the base. Per checkout, under build/: our tree and
# its builds. Override with KSM_CACHE, KSRC (another base tree) and JOBS.

TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
LAB=$TOP/lab
CACHE=${KSM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/ksm-lab}
BUILD=$TOP/build
JOBS=${JOBS:-$(nproc)}

BASE_PACKAGE=$(sed -n 's/^package: //p' "$TOP/BASE")
BASE_VERSION=$(sed -n 's/^version: //p' "$TOP/BASE")

# The base: the package's tree, or what KSRC names (a folder is used as it is
# and never written to; a tarball is unpacked once into the cache). It lies to
# its builds as build/linux lies to ours, which lets them share compiled objects.
if [ -z "${KSRC:-}" ]; then
	STOCK_BUILDS=$CACHE/build
	STOCK=$STOCK_BUILDS/linux
else
	KSRC=$(realpath "$KSRC")
	STOCK_BUILDS=$CACHE/build-$(printf %s "$KSRC" | sha256sum | cut -c1-8)
	STOCK=$KSRC
	[ -d "$KSRC" ] || STOCK=$STOCK_BUILDS/linux
fi

say() { echo "${0##*/}: $*" >&2; }
die() { say "$*"; exit 1; }

# take_lock FILE: one at a time; held until this script ends, or drops it.
take_lock() {
	mkdir -p "$(dirname "$1")"
	exec 9> "$1"
	flock -n 9 || { say "waiting for another run ($1)"; flock 9; }
}
drop_lock() { exec 9>&-; }

# use_ccache DIR: objects are shared between checkouts, so nothing in a compiler
# call may depend on where a checkout lies (below DIR) or on when it was built.
use_ccache() {
	export CCACHE_DIR=$CACHE/ccache CCACHE_BASEDIR=$1 CCACHE_NOHASHDIR=1
	export CCACHE_COMPILERCHECK=content CCACHE_MAXSIZE=8G
	export CCACHE_SLOPPINESS=time_macros,include_file_mtime,include_file_ctime
	export KBUILD_BUILD_TIMESTAMP='1970-01-01 00:00:00 UTC'
	export KBUILD_BUILD_USER=ksm KBUILD_BUILD_HOST=lab KBUILD_BUILD_VERSION=1
}
