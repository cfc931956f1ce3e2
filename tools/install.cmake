# cmake --install: the programs and their manual pages (the library: client/library.cmake).
include(GNUInstallDirs)
foreach(program granary granary-master granary-chunkserver granary-mount)
	if(TARGET ${program})
		install(TARGETS ${program} RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
	endif()
endforeach()
install(CODE "execute_process(COMMAND ${CMAKE_SOURCE_DIR}/tools/man/make ${CMAKE_BINARY_DIR}/bin ${CMAKE_BINARY_DIR}/man
	COMMAND_ERROR_IS_FATAL ANY)")
install(DIRECTORY ${CMAKE_BINARY_DIR}/man/ DESTINATION ${CMAKE_INSTALL_MANDIR})
