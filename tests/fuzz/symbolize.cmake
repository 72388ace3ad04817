sprof_fuzzer(fuzz_kallsyms symbolize)
sprof_fuzzer(fuzz_reader_reply symbolize)
sprof_fuzzer(fuzz_reader_request elf_core)
sprof_fuzzer(fuzz_elf elf_core)
