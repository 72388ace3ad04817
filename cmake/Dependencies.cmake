# Every library we use; each is justified in docs/ARCHITECTURE.md and installed by scripts/deps.sh.
find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)
foreach(dependency IN ITEMS
    "LIBBPF libbpf>=1.1" "LIBEVENT libevent_core>=2.1" "LIBEVENT_EXTRA libevent_extra>=2.1" "LIBELF libelf" "LIBDW libdw"
    "PROTOBUF_C libprotobuf-c" "INIH inih" "JSON_C json-c" "SECCOMP libseccomp" "CURL libcurl" "ZLIB zlib" "LZMA liblzma" "ZSTD libzstd" "XXHASH libxxhash")
  separate_arguments(words UNIX_COMMAND "${dependency}")
  list(GET words 0 name)
  list(GET words 1 module)
  pkg_check_modules(${name} REQUIRED IMPORTED_TARGET ${module})
endforeach()
find_library(HTTP_PARSER_LIBRARY http_parser REQUIRED) # it has no pkg-config file
find_path(HTTP_PARSER_INCLUDE http_parser.h REQUIRED)
if(SPROF_TESTS)
  pkg_check_modules(CHECK REQUIRED IMPORTED_TARGET check)
endif()
