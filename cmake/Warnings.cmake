# Warnings and hardening for all of our own C; sanitizers when asked for.
add_compile_options(-Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wundef
  -Wformat=2 -Wvla -fno-strict-aliasing -fvisibility=hidden)
add_compile_definitions(_GNU_SOURCE SPROF_VERSION="${PROJECT_VERSION}")
if(SPROF_SANITIZE)
  add_compile_options(-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer)
  add_link_options(-fsanitize=address,undefined)
  add_compile_definitions(SPROF_SANITIZE=1)
else()
  add_compile_definitions($<$<NOT:$<CONFIG:Debug>>:_FORTIFY_SOURCE=2>)
  add_compile_options(-fstack-protector-strong -fstack-clash-protection)
  add_link_options(-Wl,-z,relro,-z,now,-z,noexecstack)
endif()
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
include_directories(${CMAKE_SOURCE_DIR} ${CMAKE_SOURCE_DIR}/daemon ${CMAKE_SOURCE_DIR}/client/include)
if(SPROF_MUTANT) # a header, so that the next mutant in the same folder compiles only what knows of them
  file(CONFIGURE OUTPUT ${CMAKE_BINARY_DIR}/mutant/sprof_mutant.h CONTENT "#define SPROF_MUTANT MUTANT_@SPROF_MUTANT@\n" @ONLY)
  include_directories(${CMAKE_BINARY_DIR}/mutant)
endif()
