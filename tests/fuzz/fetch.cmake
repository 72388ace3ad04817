# The separate program sprofd-fetch.
sprof_fuzzer(fuzz_fetch fetch)
