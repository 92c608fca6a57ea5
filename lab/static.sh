# SPDX-License-Identifier: GPL-2.0
# Sourced by lab/check: tests that only read the sources and objects.

# Rules that do not fit a file: a tracepoint is laid out in a way of its own, the
# stand-ins of the user-space tests have the shape of what they stand in for, and
# whoever sends a patch signs it off.
not_for() {
	case $1 in
	*include/trace/*) echo ,PARENTHESIS_ALIGNMENT,OPEN_ENDED_LINE ;;
	*.patch) echo ,MISSING_SIGN_OFF ;;
	*tools/testing/ksm/*) echo ,NEW_TYPEDEFS,MACRO_ARG_REUSE,BIT_MACRO ;;
	esac
}

# Silent means clean.
checkpatch() {
	local text

	text=$(cd "$TREE" && ./scripts/checkpatch.pl --strict --no-summary --terse --show-types \
		--no-tree --ignore "FILE_PATH_CHANGES$(not_for "${*: -1}")" "$@" 2>&1) &&
		[ -z "$text" ] && return
	printf '%s\n' "$text"
	return 1
}

# The released sparse does not know __typeof_unqual__, and kbuild then leaves it out
# with no more than a note. So see that it really ran.
sparse_object() {
	local text

	text=$(make -C "$TREE" O="$BUILD/x86" ARCH=x86_64 "CC=ccache gcc" "HOSTCC=ccache gcc" \
		C=2 CHECK="sparse -D__typeof_unqual__=__typeof__" "$1" 2>&1) &&
		grep -q "CHECK  *${1%.o}.c" <<< "$text" &&
		! grep -qE ': (warning|error):' <<< "$text" && return
	grep -E ': (warning|error):' <<< "$text" || printf '%s\n' "$text"
	return 1
}

kernel_doc() {
	local text

	text=$(cd "$TREE" && ./scripts/kernel-doc -none -Wall "$TOP/$1" 2>&1)
	[ -z "$text" ] || { printf '%s\n' "$text"; return 1; }
}

# The order of the objects in mm/ksm/Makefile is the order of the layers: an
# object may call ksm_* functions of objects in lines below its own, and no others.
layers() {
	local object symbol row owner bad=0
	declare -A row_of owner_of

	row_of[mm/ksm.o]=0
	row=0
	while read -r line; do
		row=$((row + 1))
		for object in $line; do row_of[mm/ksm/$object]=$row; done
	done < <(sed -n 's/^obj-[^:+]*[:+]= *//p' "$TOP/mm/ksm/Makefile")
	for object in "${!row_of[@]}"; do
		[ -f "$BUILD/x86/$object" ] || { echo "$object was not built"; return 1; }
		for symbol in $(nm -g --defined-only "$BUILD/x86/$object" | awk '$2 == "T" && $3 ~ /^_*ksm_/ { print $3 }'); do
			owner_of[$symbol]=$object
		done
	done
	for object in "${!row_of[@]}"; do
		for symbol in $(nm -u "$BUILD/x86/$object" | awk '{ print $2 }'); do
			owner=${owner_of[$symbol]:-}
			[ -n "$owner" ] && [ "$owner" != "$object" ] || continue
			[ "${row_of[$owner]}" -le "${row_of[$object]}" ] || continue
			echo "$object may not use $symbol of $owner"
			bad=1
		done
	done
	return $bad
}

# Knobs are read and set at any time, without a lock in common.
knobs_once() {
	! grep -nE 'knobs(\.|->)[a-z]' "$TOP"/mm/ksm.c "$TOP"/mm/ksm/*.c |
		grep -vE '(READ|WRITE)_ONCE\([^()]*knobs(\.|->)[a-z]'
}

static_all() {
	local f p

	for f in $(files_of_ours '*.c' '*.h'); do
		test_it "checkpatch $f" checkpatch -f "$TOP/$f"
	done
	while read -r p; do
		test_it "checkpatch $p" checkpatch "$TOP/patches/$p"
	done < "$TOP/patches/series"
	for f in $(cd "$TOP" && ls mm/ksm.c mm/ksm/*.[ch] include/linux/ksm.h 2>/dev/null); do
		test_it "kernel-doc $f" kernel_doc "$f"
	done

	test_it "knobs" knobs_once

	use_ccache "$BUILD"
	"$LAB/kernel" x86 > /dev/null || { not_ok "x86: the build failed"; return; }
	take_lock "$BUILD/x86/.lock"
	for f in $(cd "$TOP" && ls mm/ksm.c mm/ksm/*.c); do
		test_it "sparse $f" sparse_object "${f%.c}.o"
	done
	test_it "layers" layers
	drop_lock
}
