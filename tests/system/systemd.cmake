# Boots a real systemd in a container; skipped, with the reason, where that cannot be. It judges units and who may do what, for which one build is enough.
if(NOT SPROF_SANITIZE)
  add_test(NAME system.systemd COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/test_systemd.sh)
  set_tests_properties(system.systemd PROPERTIES LABELS system TIMEOUT 240 COST 40 SKIP_RETURN_CODE 77
    ENVIRONMENT "SPROF_BUILD=${CMAKE_BINARY_DIR}")
endif()
