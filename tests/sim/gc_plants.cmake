# Proof that sim_gc can fail: one file of the master built again with a planted bug (#ifdef PLANT_...), in place of the library's, which
# must be found within a fixed number of seeds. With none of them sim_gc finds nothing.
set(gc_plants
	chunkserver_service:COLLECTION_ON_A_STALE_MAP:60 # a copy without a record is deleted, whatever that proves
	servers:OLD_STATE_COLLECTS:160)			# masters from an older snapshot go on to empty the trash and to reclaim
add_library(sim_gc_parts OBJECT sim/sim_gc.c)
target_link_libraries(sim_gc_parts PRIVATE ${sim_rooms} granary_sim)
foreach(plant ${gc_plants})
	string(REPLACE ":" ";" plant ${plant})
	list(GET plant 0 file)
	list(GET plant 1 bug)
	list(GET plant 2 seeds)
	set(name sim_gc_plant_${bug})
	add_executable(${name} ${CMAKE_SOURCE_DIR}/master/${file}.c $<TARGET_OBJECTS:sim_gc_parts>)
	target_compile_definitions(${name} PRIVATE PLANT_${bug})
	target_link_libraries(${name} PRIVATE ${sim_rooms} granary_sim granary_rpc granary_sim granary_common)
	add_test(NAME ${name} COMMAND ${name} --seeds ${seeds} --expect-failure)
	set_tests_properties(${name} PROPERTIES LABELS sim TIMEOUT 300)
endforeach()
