foreach(name IN ITEMS test_cfi_check test_file test_maps test_profile test_python_codes)
  sprof_unit_test(${name} model)
endforeach()
