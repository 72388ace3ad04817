foreach(name IN ITEMS test_deep_stack test_python_frames test_reconcile test_thread_clock)
  sprof_unit_test(${name} reconcile)
endforeach()
