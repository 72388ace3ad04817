# The stage symbolize and its separate program sprofd-elf.
foreach(name IN ITEMS test_elf_symbols test_elf_files test_elf_demangle test_elf_jit test_elf_requests test_elf_sandbox)
  sprof_unit_test(${name} elf_core)
endforeach()
sprof_unit_test(test_kallsyms symbolize)
sprof_unit_test(test_fetch_client symbolize proto_fetch)
sprof_unit_test(test_opener symbolize)
sprof_unit_test(test_symbolize_cache symbolize)
sprof_unit_test(test_symbolize_protocol symbolize proto_reader)

add_executable(fake_reader fake_reader.c)
target_link_libraries(fake_reader PRIVATE elf_core)
sprof_unit_test(test_symbolize symbolize)
target_compile_definitions(test_symbolize PRIVATE
  READER_PATH="$<TARGET_FILE:sprofd-elf>" FAKE_READER_PATH="$<TARGET_FILE:fake_reader>")
add_dependencies(test_symbolize sprofd-elf fake_reader)

# Unwind tables; libdw is their oracle.
add_library(cfi_oracle STATIC cfi_oracle.c)
target_link_libraries(cfi_oracle PUBLIC elf_core PkgConfig::LIBDW)
sprof_unit_test(test_elf_cfi_oracle cfi_oracle)
sprof_unit_test(test_symbolize_unwind symbolize elf_core)
target_compile_definitions(test_symbolize_unwind PRIVATE
  READER_PATH="$<TARGET_FILE:sprofd-elf>" FAKE_READER_PATH="$<TARGET_FILE:fake_reader>")
add_dependencies(test_symbolize_unwind sprofd-elf fake_reader)
sprof_unit_test(test_elf_cfi_ops elf_core)
sprof_unit_test(test_elf_cfi_files elf_core)
sprof_unit_test(test_elf_cfi_go elf_core)
