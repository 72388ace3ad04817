# The rules for valid profiles, and the program that the system tests run on what they pulled.
add_library(profile_rules STATIC profile_check.c)
target_link_libraries(profile_rules PUBLIC proto_profile PkgConfig::ZLIB)
target_include_directories(profile_rules PUBLIC ${CMAKE_CURRENT_SOURCE_DIR})
add_executable(profile_check ${CMAKE_SOURCE_DIR}/tests/system/profile_check.c)
target_link_libraries(profile_check PRIVATE profile_rules)
set_target_properties(profile_check PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests/system)

sprof_unit_test(test_pprof pprof profile_rules)
sprof_unit_test(test_pprof_tables pprof)
sprof_unit_test(test_profile_check profile_rules)
sprof_unit_test(test_pprof_go store pprof profile_rules)
set_tests_properties(unit.test_pprof_go PROPERTIES SKIP_RETURN_CODE 77)
