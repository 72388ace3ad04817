sprof_fuzzer(fuzz_unwind)
