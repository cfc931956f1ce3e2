# Proof that sim_crash can fail: one file built again with a planted bug (#ifdef PLANT_...), in place of the library's, which must be found
# among sequences of so many operations. With none of them sim_crash finds nothing.
set(crash_plants
	chunkserver/chunk_sync:CHUNK_SYNC_SKIPPED:1	     # a chunkserver acknowledges before it has synced
	chunkserver/chunk_sync:CHUNK_NAME_NOT_SYNCED:1	     # a new chunk file is synced, its name is not
	client/file_flush:CLIENT_BLOB_LEFT_UNSYNCED:1	     # bytes that were durable in a pack are moved to a chunk that is not
	client/file_reshape:CLIENT_TRIM_NOT_SYNCED:1	     # a cut-off end that may come back is forgotten
	master/wal:WAL_WITHOUT_SYNC:1			     # a master acknowledges before it has synced its log
	master/wal_segment:WAL_SEGMENT_NAME_NOT_SYNCED:1     # a new segment of the log is synced, its name is not
	master/replica_store:CUT_UNSYNCED:1)		     # the log is cut before the database is synced
file(GLOB crash_parts CONFIGURE_DEPENDS sim/crash_*.c)
add_library(sim_crash_parts OBJECT sim/sim_crash.c ${crash_parts})
target_link_libraries(sim_crash_parts PRIVATE ${sim_rooms} granary_sim)
foreach(plant ${crash_plants})
	string(REPLACE ":" ";" plant ${plant})
	list(GET plant 0 file)
	list(GET plant 1 bug)
	list(GET plant 2 length)
	set(name sim_crash_plant_${bug})
	add_executable(${name} ${CMAKE_SOURCE_DIR}/${file}.c $<TARGET_OBJECTS:sim_crash_parts>)
	target_compile_definitions(${name} PRIVATE PLANT_${bug})
	target_link_libraries(${name} PRIVATE ${sim_rooms} granary_sim granary_rpc granary_sim granary_common)
	add_test(NAME ${name} COMMAND ${name} --length ${length} --expect-failure)
	set_tests_properties(${name} PROPERTIES LABELS sim TIMEOUT 600)
endforeach()
