# bpf/unwind.h in its user-mode build, the table of outcomes, and the shape of the tree.
foreach(name IN ITEMS test_outcome test_unwind)
  sprof_unit_test(${name} base)
endforeach()
sprof_unit_test(test_python_walk collect)
sprof_unit_test(test_walk collect reconcile libsprof_static)
sprof_unit_test(test_cfi_walk base PkgConfig::LIBDW PkgConfig::LIBELF)
target_compile_options(test_cfi_walk PRIVATE -fomit-frame-pointer -fno-optimize-sibling-calls)
if(NOT SPROF_SANITIZE) # it judges the rules: what the walker may not touch is for test_cfi_walk, test_walk and the corpora
  sprof_unit_test(test_cfi_steps base model PkgConfig::LIBDW PkgConfig::LIBELF)
  add_dependencies(test_cfi_steps steps_lazy steps_now)
  target_compile_definitions(test_cfi_steps PRIVATE STEPS_LAZY="$<TARGET_FILE:steps_lazy>" STEPS_NOW="$<TARGET_FILE:steps_now>")
endif()
# Held against the frames that the compiler made: so there must be some.
target_compile_options(test_unwind PRIVATE -fno-omit-frame-pointer -fno-optimize-sibling-calls)
target_compile_definitions(test_outcome PRIVATE SPROF_SOURCE_DIR="${CMAKE_SOURCE_DIR}")

if(NOT SPROF_SANITIZE) # it looks at the sources, and not at what is built
  add_test(NAME unit.test_include_edges
    COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/test_include_edges.sh ${CMAKE_SOURCE_DIR})
  set_tests_properties(unit.test_include_edges PROPERTIES LABELS unit TIMEOUT 120)
endif()
