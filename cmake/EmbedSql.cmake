# SPDX-License-Identifier: Apache-2.0
# embed_sql(TARGET HEADER NAME FILE...): at build time, makes HEADER with
#   static const char *const NAME[] = { "text of FILE", ... };
# in TARGET's private include path, under the source folder's name: "snapshotters/metastore_sql.h".
# Run as a script (cmake -P), it is what writes the header.

if(CMAKE_SCRIPT_MODE_FILE)
	set(items)
	foreach(file ${FILES})
		file(READ ${file} text)
		# A string constant per line: an ISO C compiler need not take one of over 4095 characters.
		string(REPLACE "\\" "\\\\" text "${text}")
		string(REPLACE "\"" "\\\"" text "${text}")
		string(REPLACE "\n" "\\n\"\n\t\"" text "${text}")
		string(APPEND items "\t\"${text}\",\n")
	endforeach()
	file(WRITE ${OUTPUT} "/* Made by cmake/EmbedSql.cmake. */\nstatic const char *const ${NAME}[] = {\n${items}};\n")
	return()
endif()

function(embed_sql target header name)
	set(files)
	foreach(file ${ARGN})
		list(APPEND files ${CMAKE_CURRENT_SOURCE_DIR}/${file})
	endforeach()
	file(RELATIVE_PATH folder ${CMAKE_SOURCE_DIR} ${CMAKE_CURRENT_SOURCE_DIR})
	set(output ${CMAKE_CURRENT_BINARY_DIR}/include/${folder}/${header})
	add_custom_command(OUTPUT ${output}
		COMMAND ${CMAKE_COMMAND} "-DFILES=${files}" -DOUTPUT=${output} -DNAME=${name}
			-P ${CMAKE_SOURCE_DIR}/cmake/EmbedSql.cmake
		DEPENDS ${files} ${CMAKE_SOURCE_DIR}/cmake/EmbedSql.cmake
		VERBATIM)
	target_sources(${target} PRIVATE ${output})
	target_include_directories(${target} PRIVATE ${CMAKE_CURRENT_BINARY_DIR}/include)
endfunction()
