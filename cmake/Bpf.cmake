# sprof_bpf_skeleton(TARGET FILE.bpf.c HEADERS...): compiles a BPF object with clang and makes an interface library whose "FILE.skel.h"
# is the bpftool skeleton. CO-RE: the few kernel types that are read are declared in bpf/kernel.h, so that the build needs no BTF.
find_program(BPF_CLANG NAMES clang clang-19 clang-16 clang-15 clang-14 REQUIRED)
find_program(BPFTOOL bpftool PATHS /usr/sbin /sbin REQUIRED)
function(sprof_bpf_skeleton target source)
  get_filename_component(stem ${source} NAME_WE)
  set(out ${CMAKE_CURRENT_BINARY_DIR})
  add_custom_command(OUTPUT ${out}/${stem}.bpf.o
    COMMAND ${BPF_CLANG} -target bpf -D__TARGET_ARCH_x86 -D__x86_64__ -mcpu=v3 -g -O2 -Wall -Wextra -Werror $<$<BOOL:${SPROF_MUTANT}>:-I${CMAKE_BINARY_DIR}/mutant>
      -I${CMAKE_SOURCE_DIR} -I${CMAKE_SOURCE_DIR}/client/include -I/usr/include/${CMAKE_C_LIBRARY_ARCHITECTURE}
      -c ${CMAKE_CURRENT_SOURCE_DIR}/${source} -o ${out}/${stem}.bpf.o
    DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${source} ${ARGN} $<$<BOOL:${SPROF_MUTANT}>:${CMAKE_BINARY_DIR}/mutant/sprof_mutant.h>
    VERBATIM COMMAND_EXPAND_LISTS)
  add_custom_command(OUTPUT ${out}/${stem}.skel.h
    COMMAND ${CMAKE_COMMAND} -E echo "/* Generated. NOLINTBEGIN */" > ${out}/${stem}.skel.h.tmp
    COMMAND ${BPFTOOL} gen skeleton ${out}/${stem}.bpf.o name ${stem}_bpf >> ${out}/${stem}.skel.h.tmp
    COMMAND ${CMAKE_COMMAND} -E echo "/* NOLINTEND */" >> ${out}/${stem}.skel.h.tmp
    COMMAND ${CMAKE_COMMAND} -E rename ${out}/${stem}.skel.h.tmp ${out}/${stem}.skel.h
    DEPENDS ${out}/${stem}.bpf.o VERBATIM)
  add_custom_target(${target}_generate DEPENDS ${out}/${stem}.skel.h)
  add_library(${target} INTERFACE)
  add_dependencies(${target} ${target}_generate)
  target_include_directories(${target} SYSTEM INTERFACE ${out})
  target_link_libraries(${target} INTERFACE PkgConfig::LIBBPF)
endfunction()
