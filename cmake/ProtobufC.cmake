# SPDX-License-Identifier: Apache-2.0
find_program(PROTOC_C protoc-c REQUIRED)

# protobuf_c_library(NAME PROTO...): C code for each PROTO (paths from the proto/ root), made at build
# time. Includes are written from that root too: "containerd/services/snapshots/v1/snapshots.pb-c.h".
function(protobuf_c_library name)
	set(sources)
	foreach(proto ${ARGN})
		string(REGEX REPLACE "\\.proto$" "" stem ${proto})
		if(EXISTS ${CMAKE_CURRENT_SOURCE_DIR}/${proto})
			set(from ${CMAKE_CURRENT_SOURCE_DIR})
		else()
			set(from /usr/include) # google/protobuf/*.proto of libprotobuf-dev
		endif()
		add_custom_command(
			OUTPUT ${CMAKE_CURRENT_BINARY_DIR}/${stem}.pb-c.c ${CMAKE_CURRENT_BINARY_DIR}/${stem}.pb-c.h
			COMMAND ${PROTOC_C} -I${CMAKE_CURRENT_SOURCE_DIR} -I/usr/include
				--c_out=${CMAKE_CURRENT_BINARY_DIR} ${from}/${proto}
			DEPENDS ${from}/${proto}
			VERBATIM)
		list(APPEND sources ${CMAKE_CURRENT_BINARY_DIR}/${stem}.pb-c.c)
	endforeach()
	add_library(${name} STATIC ${sources})
	target_include_directories(${name} SYSTEM PUBLIC ${CMAKE_CURRENT_BINARY_DIR})
	target_link_libraries(${name} PUBLIC PkgConfig::PROTOBUF_C)
endfunction()
