# SPDX-License-Identifier: GPL-2.0
# Thin verbs: the work is in lab/, each script's head says what it does.

.DEFAULT_GOAL := help
.PHONY: help demo bench figures check torture faults attacks fetch apply uml x86 stock kunit verdicts series cross coverage arm64 selfcheck clean

export KSRC KSM_CACHE JOBS

help:		## this list
	@sed -n 's/^\([a-z0-9]*\):.*## /\1|/p' Makefile | awk -F'|' '{ printf "  make %-10s %s\n", $$1, $$2 }'
	@echo
	@echo "  KSRC=DIR|TARBALL  build against this 7.3 tree instead of the package in BASE"
	@echo "  JOBS=N            compile with N jobs (default: all CPUs)"

packages:
	@lab/packages

demo: uml	## what KSM saves on a host of virtual machines (COMPARE=1: the base's as well)
	@$(if $(COMPARE),lab/kernel --stock uml > /dev/null)
	@lab/demo/run

bench: apply	## what KSM costs, the base's and ours (QUICK=1: some minutes; EXACT=1: in instructions)
	@lab/bench/run

figures:	## put the figures of the last bench into the documents
	@lab/bench/figures

check: packages	## every test, one verdict (SUITES="static kunit" for some of them)
	@lab/check $(SUITES)

torture: apply	## everything at once for a time (TIME=SECONDS SEED=N KIND=kasan)
	@lab/torture $(if $(KIND),--kind=$(KIND)) $(if $(TIME),--time=$(TIME)) $(if $(SEED),--seed=$(SEED))

faults: apply	## have each allocation of the engine fail, and list them
	@lab/faults

attacks: apply	## what the known attacks get, from the base and from ours, in each setting
	@lab/attacks

selfcheck: apply	## plant bugs one by one in a copy: do the tests find them?
	@lab/selfcheck

fetch: packages	## get the base kernel's source into the cache
	@lab/fetch

apply: fetch	## bring build/linux, our tree, up to date
	@lab/apply

uml: apply	## build our kernel as User Mode Linux; run things in it by lab/uml
	@lab/kernel uml

x86: apply	## build our x86 kernel with debugging on; run things in it by lab/qemu
	@lab/kernel x86

stock: fetch	## build both kernels of the base, for comparison (--stock)
	@lab/kernel --stock uml
	@lab/kernel --stock x86

kunit: apply	## run KUnit tests of the engine in UML
	@lab/check kunit

verdicts: stock	## take the base's verdicts in the public suites anew
	@lab/suites --stock --record

cross: apply	## compile the engine for arm64, s390x, ppc64le, riscv and i386, without a warning
	@lab/packages cross
	@lab/cross $(ARCHS)

coverage: apply	## which lines of the engine the tests run (KINDS=uml for a quick look)
	@lab/coverage $(KINDS)

arm64: apply	## run our selftests on arm64 in QEMU, with and without hardware dirty bits
	@lab/packages arm64
	@lab/arm64

series: apply	## write our work as a patch series to DIR
	@lab/series $(or $(DIR),build/series)

clean:		## remove build/ (the cache stays)
	rm -rf build
