# Proof that sim_disks can fail: one file of the chunkserver built again with a planted bug (#ifdef PLANT_...), which must be found within a
# fixed number of seeds. With none of them sim_disks finds nothing.
set(disks_plants
	LOST_RECORDS_NOT_FETCHED:pack_mend:60	# a pack that lost power does without what others have
	PACK_NOT_MARKED:pack_op:300	# … and does not know that it lost power
	DISKS_DAMAGE_IS_SOURCE:read_op:60	# what is damaged is given to others, under a checksum of its own
	COPIES_NOT_COMPARED:compare:300	# sound copies that are old stay
	LOST_CHUNK_MADE_ANEW:chunk_open:60) # a chunk whose file was lost is made anew, of zeros, by the next write
add_library(sim_disks_parts OBJECT sim/sim_disks.c sim/disks_blobs.c)
target_link_libraries(sim_disks_parts PRIVATE ${sim_rooms} granary_sim)
foreach(plant ${disks_plants})
	string(REPLACE ":" ";" plant ${plant})
	list(GET plant 0 bug)
	list(GET plant 1 file)
	list(GET plant 2 seeds)
	set(name sim_disks_plant_${bug})
	add_executable(${name} ${CMAKE_SOURCE_DIR}/chunkserver/${file}.c $<TARGET_OBJECTS:sim_disks_parts>)
	target_compile_definitions(${name} PRIVATE PLANT_${bug})
	target_link_libraries(${name} PRIVATE ${sim_rooms} granary_sim granary_rpc granary_sim granary_common)
	add_test(NAME ${name} COMMAND ${name} --seeds ${seeds} --expect-failure)
	set_tests_properties(${name} PROPERTIES LABELS sim TIMEOUT 600)
endforeach()
