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

# usage: print the head of the script, which is its help text, and give up.
usage() { sed -n '3,/^set/{/^set/d;s/^# \{0,1\}//p}' "$0" >&2; exit 2; }

# Folders of the kernel tree in which files of ours may lie.
OUR_FOLDERS="mm include Documentation tools kernel fs"

# files_of_ours [PATH...]: those of the work tree, tracked or new, from the root of the
# repo; without git, as in an exported copy, all that lie there.
files_of_ours() {
	if git -C "$TOP" rev-parse --git-dir > /dev/null 2>&1; then
		git -C "$TOP" ls-files -co --exclude-standard -- "$@"
	else
		(cd "$TOP" && find "${@:-.}" -type f -not -path './build/*' 2> /dev/null | sed 's/^\.\///')
	fi | while read -r f; do [ ! -f "$TOP/$f" ] || echo "$f"; done | sort -u
}

# patched_files: files of the base that patches/series changes.
patched_files() {
	(cd "$TOP/patches" && grep -hv '^ *\(#\|$\)' series |
		xargs -r sed -n 's/^+++ [^/]*\/\([^\t]*\).*/\1/p') | sort -u
}

# our_selftests WHERE: the programs of lab/selftests.list that run there, in its order,
# as `NAME LIMIT`.
our_selftests() {
	sed 's/[ \t]*#.*//; /^$/d' "$LAB/selftests.list" |
		awk -F ' *[|] *' -v where="$1" '(" " $2 " ") ~ (" " where " ") { print $1, $3 }'
}

# progress COMMAND...: until end_progress, or the end of this script, the command says in
# one line how far we are: every two seconds in place on a terminal, else once a minute.
progress() {
	local start=$SECONDS next=$((SECONDS + 60))

	while sleep 2 && kill -0 $$ 2> /dev/null; do
		if [ -t 2 ]; then
			printf '\r%.100s, %d s\033[K' "${0##*/}: $("$@")" $((SECONDS - start)) >&2
		elif [ $SECONDS -ge $next ]; then
			say "$("$@"), $((SECONDS - start)) s"
			next=$((next + 60))
		fi
	done 8>&- 9>&- &
	progress_pid=$!
}
end_progress() {
	kill "$progress_pid" 2> /dev/null || true
	wait "$progress_pid" 2> /dev/null || true
	[ ! -t 2 ] || printf '\r\033[K' >&2
}

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
