# SPDX-License-Identifier: Apache-2.0
# Run by cpack between installing and packing. Beside the files of cmake --install, the package has the examples as
# configuration files, which dpkg knows not to overwrite; and manual pages are compressed, as Debian wants them.
set(tree ${CPACK_TEMPORARY_INSTALL_DIRECTORY})

file(GLOB examples ${tree}/usr/share/doc/lighter/examples/*.toml)
file(COPY ${examples} DESTINATION ${tree}/etc/lighter)
file(COPY ${CMAKE_CURRENT_LIST_DIR}/copyright DESTINATION ${tree}/usr/share/doc/lighter)

file(GLOB_RECURSE pages ${tree}/usr/share/man/*.[1-9])
foreach(page ${pages})
	execute_process(COMMAND gzip -9n ${page} COMMAND_ERROR_IS_FATAL ANY)
endforeach()
