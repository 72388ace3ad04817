sprof_fuzzer(fuzz_unwind)
sprof_fuzzer(fuzz_python collect reconcile)
sprof_fuzzer(fuzz_walk collect reconcile)
