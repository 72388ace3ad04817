sprof_fuzzer(fuzz_maps collect)
sprof_fuzzer(fuzz_stat collect)
sprof_fuzzer(fuzz_barrier_table collect)
