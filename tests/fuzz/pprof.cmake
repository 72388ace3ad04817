sprof_fuzzer(fuzz_pprof store pprof profile_rules)
