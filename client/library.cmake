# libgranary: granary.h for other programs. Shared and static, both with only the names of libgranary.symbols: the client, and of
# common what it needs, go into one object whose other names are made local.
file(STRINGS ${CMAKE_CURRENT_LIST_DIR}/libgranary.symbols symbols)
list(JOIN symbols ";\n\t\t" symbols_text)
file(WRITE ${CMAKE_BINARY_DIR}/libgranary.map.new "{\n\tglobal:\n\t\t${symbols_text};\n\tlocal:\n\t\t*;\n};\n")
file(COPY_FILE ${CMAKE_BINARY_DIR}/libgranary.map.new ${CMAKE_BINARY_DIR}/libgranary.map ONLY_IF_DIFFERENT)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${CMAKE_CURRENT_LIST_DIR}/libgranary.symbols)

add_library(granary_shared SHARED $<TARGET_OBJECTS:granary_client>)
target_link_libraries(granary_shared PRIVATE "$<LINK_GROUP:RESCAN,granary_sys,granary_rpc>" granary_common granary_schema)
target_link_options(granary_shared PRIVATE -Wl,--version-script=${CMAKE_BINARY_DIR}/libgranary.map -Wl,--gc-sections -Wl,--as-needed)
set_target_properties(granary_shared PROPERTIES OUTPUT_NAME granary VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR}
	LINKER_LANGUAGE C LINK_DEPENDS ${CMAKE_BINARY_DIR}/libgranary.map)

add_custom_command(OUTPUT ${CMAKE_BINARY_DIR}/libgranary.o
	COMMAND ${CMAKE_LINKER} -r -o libgranary.all.o $<TARGET_OBJECTS:granary_client> --start-group $<TARGET_FILE:granary_sys>
		$<TARGET_FILE:granary_rpc> $<TARGET_FILE:granary_common> $<TARGET_FILE:granary_schema> --end-group
	COMMAND ${CMAKE_OBJCOPY} --keep-global-symbols=${CMAKE_CURRENT_LIST_DIR}/libgranary.symbols libgranary.all.o libgranary.o
	DEPENDS granary_client granary_sys granary_rpc granary_common granary_schema $<TARGET_OBJECTS:granary_client>
		client/libgranary.symbols
	WORKING_DIRECTORY ${CMAKE_BINARY_DIR} COMMAND_EXPAND_LISTS VERBATIM)
add_library(granary_static STATIC ${CMAKE_BINARY_DIR}/libgranary.o)
set_source_files_properties(${CMAKE_BINARY_DIR}/libgranary.o PROPERTIES EXTERNAL_OBJECT TRUE GENERATED TRUE)
set_target_properties(granary_static PROPERTIES OUTPUT_NAME granary LINKER_LANGUAGE C)

include(GNUInstallDirs)
file(RELATIVE_PATH granary_prefix /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
configure_file(${CMAKE_CURRENT_LIST_DIR}/granary.pc.in ${CMAKE_BINARY_DIR}/granary.pc @ONLY)
install(TARGETS granary_shared granary_static LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(FILES client/granary.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(FILES ${CMAKE_BINARY_DIR}/granary.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
