# sprof_protobuf(TARGET FILE.proto): a static library of the protobuf-c code of one .proto file; its header is included as "FILE.pb-c.h".
find_program(PROTOC_C protoc-c REQUIRED)
function(sprof_protobuf target proto)
  get_filename_component(stem ${proto} NAME_WE)
  set(out ${CMAKE_CURRENT_BINARY_DIR})
  add_custom_command(OUTPUT ${out}/${stem}.pb-c.c ${out}/${stem}.pb-c.h
    COMMAND ${PROTOC_C} --c_out=${out} --proto_path=${CMAKE_CURRENT_SOURCE_DIR} ${proto}
    DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${proto} VERBATIM)
  add_library(${target} STATIC ${out}/${stem}.pb-c.c ${out}/${stem}.pb-c.h)
  target_include_directories(${target} SYSTEM PUBLIC ${out})
  target_compile_options(${target} PRIVATE -w)
  target_link_libraries(${target} PUBLIC PkgConfig::PROTOBUF_C)
endfunction()
