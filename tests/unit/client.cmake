foreach(concern IN ITEMS command_line http output_file printable report table_text)
  sprof_unit_test(test_sprofctl_${concern} sprofctl_core)
endforeach()
