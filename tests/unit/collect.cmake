foreach(name IN ITEMS test_process test_proc_maps)
  sprof_unit_test(${name} collect)
endforeach()
