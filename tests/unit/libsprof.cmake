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
if(TARGET greenrt AND NOT SPROF_SANITIZE) # which is built without, as the other targets
  foreach(name IN ITEMS test_greenrt test_greenrt_stacks)
    sprof_unit_test(${name})
    target_include_directories(${name} PRIVATE ${CMAKE_SOURCE_DIR}/client/include)
    target_compile_definitions(${name} PRIVATE GREENRT="$<TARGET_FILE:greenrt>")
    add_dependencies(${name} greenrt)
    set_tests_properties(unit.${name} PROPERTIES LABELS "unit;timed" RUN_SERIAL TRUE)
  endforeach()
  set_tests_properties(unit.test_greenrt_stacks PROPERTIES TIMEOUT 400) # it goes on until it has seen enough
endif()
if(TARGET sprof_preload AND NOT SPROF_SANITIZE) # a sanitizer stands before these functions itself
  sprof_unit_test(test_preload)
  target_link_libraries(test_preload PRIVATE Threads::Threads)
  add_dependencies(test_preload sprof_preload)
  set_property(TEST unit.test_preload APPEND PROPERTY ENVIRONMENT LD_PRELOAD=$<TARGET_FILE:sprof_preload>)
endif()
