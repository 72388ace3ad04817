foreach(name IN ITEMS test_cfi_check test_file test_maps test_profile)
  sprof_unit_test(${name} model)
endforeach()
