# SPDX-License-Identifier: GPL-2.0
# Sourced by lab/uml and lab/qemu: one run of one command in one VM.
#
# A run has a folder: cmd (what the guest executes), console (the kernel's
# messages), output (what the command printed) and result (what lab/init says at
# the end: `rc N`, and `leak ...` lines). No result means that the kernel died.

VM_HUNG=124
VM_DIED=125

# parse_options ARGS...: sets the variables that the runners share, and command.
parse_options() {
	stock=0 cpu=max limit=600 keep="" append="" with=()
	while [ $# -gt 0 ]; do
		case $1 in
		--stock) stock=1 ;;
		--kind=*) kind=${1#*=} ;;
		--cpu=*) cpu=${1#*=} ;;
		--mem=*) mem=${1#*=} ;;
		--cpus=*) cpus=${1#*=} ;;
		--timeout=*) limit=${1#*=} ;;
		--keep=*) keep=${1#*=} ;;
		--append=*) append="$append ${1#*=}" ;;
		--with=*) with+=("${1#*=}") ;;
		-*) usage ;;
		*) break ;;
		esac
		shift
	done
	[ $# -gt 0 ] || usage
	command=("$@")
}

# begin_run CMD...: make the run's folder, and see to it that nothing outlives us.
begin_run() {
	if [ -n "$keep" ]; then
		mkdir -p "$keep"
		run=$(realpath "$keep")
		rm -f "$run"/{cmd,console,output,result,hung}
	else
		run=$(mktemp -d "${TMPDIR:-/tmp}/ksm-lab.XXXXXX")
	fi
	vm=""
	trap end_run EXIT
	trap 'exit 130' INT TERM HUP
	{ printf 'cd %q 2>/dev/null || cd /\n' "$PWD"
	  printf '%q ' "$@"; echo; } > "$run/cmd"
}

end_run() {
	trap - EXIT INT TERM HUP
	[ -z "$vm" ] || kill -KILL "$vm" 2>/dev/null || true
	[ -n "$keep" ] || rm -rf "$run"
}

# boot COMMAND...: start the VM, the command's output on its fd 3, and wait for its
# end. UML leaves our session, so each process of the chain asks to die with its
# parent: then nothing is left even if this script itself is killed.
boot() {
	local start=$SECONDS printer rc=0 die_with_parent="setpriv --pdeathsig KILL"

	: > "$run/output"
	exec 3> >(exec tee "$run/output")
	printer=$!
	$die_with_parent timeout -s KILL "$limit" $die_with_parent "$@" \
		< /dev/null > "$run/console" 2>&1 &
	vm=$!
	exec 3>&-
	wait "$vm" 2>/dev/null || rc=$?
	vm=""
	if [ $rc -ge 124 ] && [ $((SECONDS - start)) -ge "$limit" ]; then
		: > "$run/hung"
	fi
	wait "$printer" || true
}

# finish_run: exit as the command did, or say how the VM ended.
finish_run() {
	local rc

	rc=$(sed -n 's/^rc //p' "$run/result" 2>/dev/null || true)
	[ -z "$rc" ] || exit "$rc"
	if [ -f "$run/hung" ]; then
		say "no end after $limit s, killed; the last messages of its kernel:"
		tail -n 15 "$run/console" >&2
		exit $VM_HUNG
	fi
	say "the kernel died; its last messages:"
	tail -n 40 "$run/console" >&2
	exit $VM_DIED
}
