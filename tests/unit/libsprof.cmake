foreach(name IN ITEMS test_libsprof_stacks test_libsprof_threads test_libsprof_reader test_libsprof_fork)
  sprof_unit_test(${name} libsprof_static)
endforeach()
sprof_unit_test(test_libsprof_table libsprof_static PkgConfig::SECCOMP)
# What is in the shared form is what sprof.map lists, and no more; C++ takes the headers, whether it inlines or not.
find_program(SPROF_CXX NAMES c++ g++ clang++)
if(SPROF_CXX AND NOT SPROF_SANITIZE)
  add_test(NAME unit.test_libsprof_cxx COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/test_libsprof_cxx.sh ${SPROF_CXX} ${CMAKE_SOURCE_DIR}
    $<TARGET_FILE:libsprof_shared>)
  set_tests_properties(unit.test_libsprof_cxx PROPERTIES LABELS unit TIMEOUT 60)
endif()
