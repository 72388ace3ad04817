foreach(name IN ITEMS access address_space jobs listener notify settings windows)
  sprof_unit_test(test_${name} app)
endforeach()

# The threads of jobs under ThreadSanitizer, which does not go with AddressSanitizer.
if(NOT SPROF_SANITIZE)
  add_executable(test_jobs_tsan test_jobs.c ${CMAKE_SOURCE_DIR}/daemon/app/jobs.c ${CMAKE_SOURCE_DIR}/daemon/base/clock.c)
  target_compile_options(test_jobs_tsan PRIVATE -fsanitize=thread)
  target_link_options(test_jobs_tsan PRIVATE -fsanitize=thread)
  target_link_libraries(test_jobs_tsan PRIVATE PkgConfig::CHECK PkgConfig::LIBEVENT Threads::Threads)
  add_test(NAME unit.test_jobs_tsan COMMAND test_jobs_tsan)
  set_tests_properties(unit.test_jobs_tsan PROPERTIES LABELS unit TIMEOUT 120)
endif()
