# Proof that sim_locks can fail: as in cluster_plants.cmake.
set(locks_plants
	NOT_FENCED:master/fences:60		# a session ends before the chunkservers know
	FENCE_IGNORED:chunkserver/fence:60)	# a chunkserver takes what an expired session sends
add_library(sim_locks_parts OBJECT sim/sim_locks.c)
target_link_libraries(sim_locks_parts PRIVATE ${sim_rooms} granary_sim)
foreach(plant ${locks_plants})
	string(REPLACE ":" ";" plant ${plant})
	list(GET plant 0 bug)
	list(GET plant 1 file)
	list(GET plant 2 seeds)
	set(name sim_locks_plant_${bug})
	add_executable(${name} ${CMAKE_SOURCE_DIR}/${file}.c $<TARGET_OBJECTS:sim_locks_parts>)
	target_compile_definitions(${name} PRIVATE PLANT_${bug})
	target_link_libraries(${name} PRIVATE ${sim_rooms} granary_sim granary_rpc granary_sim granary_common)
	add_test(NAME ${name} COMMAND ${name} --seeds ${seeds} --expect-failure)
	set_tests_properties(${name} PROPERTIES LABELS sim TIMEOUT 600)
endforeach()
