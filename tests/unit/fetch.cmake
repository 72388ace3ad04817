# The separate program sprofd-fetch.
sprof_unit_test(test_debug_cache fetch)
