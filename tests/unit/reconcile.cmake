foreach(name IN ITEMS test_reconcile test_thread_clock)
  sprof_unit_test(${name} reconcile)
endforeach()
