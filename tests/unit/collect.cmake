foreach(name IN ITEMS test_barrier_table test_table_config test_table_judge test_process test_proc_maps test_python_code)
  sprof_unit_test(${name} collect)
endforeach()
sprof_unit_test(test_sampler collect)
target_link_libraries(test_sampler PRIVATE m)
sprof_unit_test(test_news collect)
# They count what comes in a time.
set_tests_properties(unit.test_sampler unit.test_news PROPERTIES LABELS "unit;timed" RUN_SERIAL TRUE SKIP_RETURN_CODE 77 TIMEOUT 600 COST 20)
sprof_unit_test(test_unwind_maps collect PkgConfig::LIBBPF)
