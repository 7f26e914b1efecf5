# SPDX-License-Identifier: Apache-2.0
# The target "uninstall": removes what cmake --install has written down, below DESTDIR if that is set, and the
# directories that are ours alone.
if(NOT CMAKE_SCRIPT_MODE_FILE)
	add_custom_target(uninstall
		COMMAND ${CMAKE_COMMAND} -D MANIFEST=${CMAKE_BINARY_DIR}/install_manifest.txt
			-D DOC_DIR=${CMAKE_INSTALL_FULL_DOCDIR} -P ${CMAKE_CURRENT_LIST_FILE}
		VERBATIM)
	return()
endif()

if(NOT EXISTS ${MANIFEST})
	message(FATAL_ERROR "${MANIFEST} is not there: nothing was installed from this build directory")
endif()
file(STRINGS ${MANIFEST} files)
foreach(file ${files})
	message(STATUS "Removing: $ENV{DESTDIR}${file}")
	file(REMOVE $ENV{DESTDIR}${file})
endforeach()
foreach(dir ${DOC_DIR}/examples ${DOC_DIR})
	file(GLOB left $ENV{DESTDIR}${dir}/*)
	if(NOT left)
		file(REMOVE_RECURSE $ENV{DESTDIR}${dir})
	endif()
endforeach()
