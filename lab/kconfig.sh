# SPDX-License-Identifier: GPL-2.0
# Sourced by the scripts that build kernels: a configuration made of fragments.

# landed FRAGMENT: names the lines that the finished .config does not have.
landed() {
	local line name

	while read -r line; do
		case $line in
		CONFIG_*=n|'# CONFIG_'*' is not set')
			name=$(printf %s "$line" | sed 's/^# //; s/[ =].*//')
			! grep -q "^$name=" "$out/.config" || echo "$line" ;;
		CONFIG_*)
			grep -qxF -- "$line" "$out/.config" || echo "$line" ;;
		esac
	done < "$1"
}

# configure FRAGMENT...: make $out/.config, from allnoconfig and lab/configs, by
# make "${make_args[@]}". Every line of a fragment must land.
configure() {
	local want=$out/lab.config missing f

	for f; do
		cat "$LAB/configs/$f.config"
	done > "$want.new"
	# A new Kconfig of ours must be seen as well.
	if [ -f "$out/.config" ] && cmp -s "$want.new" "$want" &&
	   ! find "$TOP/mm" "$TOP/patches" -name 'Kconfig*' -newer "$out/.config" 2>/dev/null | grep -q .; then
		rm "$want.new"
		return
	fi
	rm -f "$want"
	make "${make_args[@]}" KCONFIG_ALLCONFIG="$want.new" allnoconfig > "$out/config.log" 2>&1 ||
		{ tail -n 20 "$out/config.log" >&2; die "configuring $out failed"; }
	missing=$(landed "$want.new")
	[ -z "$missing" ] || die "these lines of lab/configs did not land in $out/.config:
$missing"
	mv "$want.new" "$want"
}
