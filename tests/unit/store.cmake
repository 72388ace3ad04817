sprof_unit_test(test_store_set store)
sprof_unit_test(test_store_epoch store)
