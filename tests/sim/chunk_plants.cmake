# Proof that sim_chunk can fail: one file of the chunkserver built again with a planted bug (#ifdef PLANT_...), in place of the
# library's, which must be found within a fixed number of seeds. With none of them sim_chunk finds nothing.
set(chunk_plants
	REPLICA_COMMITTED_BEFORE_COPY_IS_COMPLETE:fill:20 # the master is told before anything was copied
	INCOMPLETE_COPY_SERVED:chunk_op:20
	RETIRED_COPY_SERVED:chunk_op:20)
# SAID_WITHOUT_LEASE (service: who has no lease settles, rejoins and gives all the same) is in the code and is not found within 150 seeds
# since servers lose power in some of them: it wants a scenario of its own.
add_library(sim_chunk_parts OBJECT sim/sim_chunk.c sim/chunk_master.c)
target_link_libraries(sim_chunk_parts PRIVATE ${sim_rooms} granary_sim)
foreach(plant ${chunk_plants})
	string(REPLACE ":" ";" plant ${plant})
	list(GET plant 0 bug)
	list(GET plant 1 file)
	list(GET plant 2 seeds)
	list(LENGTH plant length)
	set(first 1)
	if(length GREATER 3)
		list(GET plant 3 first)
	endif()
	set(name sim_chunk_plant_${bug})
	add_executable(${name} ${CMAKE_SOURCE_DIR}/chunkserver/${file}.c $<TARGET_OBJECTS:sim_chunk_parts>)
	target_compile_definitions(${name} PRIVATE PLANT_${bug})
	target_link_libraries(${name} PRIVATE ${sim_rooms} granary_sim granary_rpc granary_sim granary_common)
	add_test(NAME ${name} COMMAND ${name} --seed ${first} --seeds ${seeds} --expect-failure)
	set_tests_properties(${name} PROPERTIES LABELS sim TIMEOUT 600)
endforeach()
