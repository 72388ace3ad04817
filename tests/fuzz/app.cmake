sprof_fuzzer(fuzz_settings app)
