# SPDX-License-Identifier: Apache-2.0
pkg_check_modules(CMOCKA REQUIRED IMPORTED_TARGET cmocka)

# lighter_test(NAME SOURCES... LINK target... [LABELS label...]): a cmocka program run by ctest.
# LABELS root marks what needs root (the program itself skips, with the reason, without it).
function(lighter_test name)
	cmake_parse_arguments(ARG "" "" "SOURCES;LINK;LABELS;ARGS" ${ARGN})
	add_executable(${name} ${ARG_SOURCES})
	target_link_libraries(${name} PRIVATE lighter_warnings ${ARG_LINK} PkgConfig::CMOCKA)
	add_test(NAME ${name} COMMAND ${name} ${ARG_ARGS})
	set_tests_properties(${name} PROPERTIES TIMEOUT 900)
	if(LIGHTER_SANITIZE MATCHES "thread")
		set_tests_properties(${name} PROPERTIES
			ENVIRONMENT "TSAN_OPTIONS=suppressions=${CMAKE_SOURCE_DIR}/cmake/tsan.supp")
	endif()
	if(ARG_LABELS)
		set_tests_properties(${name} PROPERTIES LABELS "${ARG_LABELS}")
	endif()
endfunction()
