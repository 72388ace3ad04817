foreach(name IN ITEMS test_arena test_clock test_error test_hash test_log test_scratch test_utf8)
  sprof_unit_test(${name} base)
endforeach()
