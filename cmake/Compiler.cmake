# SPDX-License-Identifier: Apache-2.0
# The language, the warnings and the hardening that every target of ours is built with.

set(CMAKE_C_STANDARD 11)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_C_EXTENSIONS ON)
set(CMAKE_CXX_STANDARD 17)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_SKIP_INSTALL_RPATH ON)

find_program(CCACHE_PROGRAM ccache)
if(CCACHE_PROGRAM)
	set(CMAKE_C_COMPILER_LAUNCHER ${CCACHE_PROGRAM})
	set(CMAKE_CXX_COMPILER_LAUNCHER ${CCACHE_PROGRAM})
endif()

include_directories(${CMAKE_SOURCE_DIR})
add_compile_definitions(_GNU_SOURCE LIGHTER_VERSION="${PROJECT_VERSION}")
add_link_options(-pie -Wl,-z,relro,-z,now -Wl,--as-needed)
add_compile_options(-fno-omit-frame-pointer -fstack-protector-strong -fstack-clash-protection)
if(CMAKE_BUILD_TYPE STREQUAL "RelWithDebInfo" OR CMAKE_BUILD_TYPE STREQUAL "Release")
	add_compile_options(-D_FORTIFY_SOURCE=2)
	set(CMAKE_C_FLAGS_RELWITHDEBINFO "-O2 -g -DNDEBUG")
	set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "-O2 -g -DNDEBUG")
endif()

if(LIGHTER_CRASH_POINTS)
	add_compile_definitions(LIGHTER_CRASH_POINTS=1)
endif()
if(LIGHTER_FUZZ)
	# Coverage for the fuzzer in all of our code; only the targets themselves link its main().
	add_compile_options(-fsanitize=fuzzer-no-link)
endif()
if(LIGHTER_SANITIZE)
	add_compile_options(-fsanitize=${LIGHTER_SANITIZE} -fno-sanitize-recover=all)
	add_link_options(-fsanitize=${LIGHTER_SANITIZE})
endif()

# Warnings apply to code written here, not to generated code (see ProtobufC.cmake).
add_library(lighter_warnings INTERFACE)
target_compile_options(lighter_warnings INTERFACE
	-Wall -Wextra -Werror -Wformat=2 -Wundef -Wshadow -Wpointer-arith -Wvla
	$<$<COMPILE_LANGUAGE:C>:-Wstrict-prototypes -Wmissing-prototypes -Wold-style-definition>)

# lighter_library(NAME SOURCES... [LINK target...]): a static library of ours.
function(lighter_library name)
	cmake_parse_arguments(ARG "" "" "SOURCES;LINK;LINK_PRIVATE" ${ARGN})
	add_library(${name} STATIC ${ARG_SOURCES})
	target_link_libraries(${name} PUBLIC ${ARG_LINK} PRIVATE lighter_warnings ${ARG_LINK_PRIVATE})
endfunction()

# lighter_daemon(NAME SOURCES... LINK target...): an executable that is installed.
function(lighter_daemon name)
	cmake_parse_arguments(ARG "" "" "SOURCES;LINK" ${ARGN})
	add_executable(${name} ${ARG_SOURCES})
	target_link_libraries(${name} PRIVATE lighter_warnings ${ARG_LINK})
	install(TARGETS ${name} RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endfunction()
